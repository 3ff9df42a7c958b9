"""Calls that must be refused: what is wrong with each, and whether TensorFlow refuses it too."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

_CONV2D_BASE: dict[str, Any] = {
    "input_shape": (1, 5, 6, 4),
    "input_dtype": "float32",
    "filter_shape": (3, 3, 4, 2),
    "filter_dtype": "float32",
    "strides": 1,
    "padding": "SAME",
    "data_format": "NHWC",
    "dilations": None,
}
BASES = {
    "conv2d": _CONV2D_BASE,
    "depthwise_conv2d": {**_CONV2D_BASE, "strides": [1, 1, 1, 1]},
}


@dataclass(frozen=True)
class IllegalCall:
    """A legal call of `BASES` with ``changes`` that make it illegal.

    TensorFlow's graph mode refuses it too, but for ``tensorflow_accepts``: there this package is
    stricter on purpose.
    """

    label: str
    op: str
    error: type[Exception]
    names: str  # a regular expression for what the message must name
    tensorflow_accepts: bool = False
    changes: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        return {**BASES[self.op], **self.changes}


def _illegal(
    op: str,
    label: str,
    error: type[Exception],
    names: str,
    tensorflow_accepts: bool = False,
    **changes: Any,
) -> IllegalCall:
    prefix = "dw_" if op == "depthwise_conv2d" else ""
    return IllegalCall(prefix + label, op, error, names, tensorflow_accepts, changes)


_ONES = [(1, 1), (1, 1)]
_conv = partial(_illegal, "conv2d")
_depthwise = partial(_illegal, "depthwise_conv2d")

_RATES = tuple(
    row
    for name, word in (("strides", "[Ss]tride"), ("dilations", "[Dd]ilation"))
    for row in (
        _conv(f"{name}_empty", ValueError, name, **{name: []}),
        _conv(f"{name}_of_3", ValueError, rf"{name}=\[2, 2, 2\]", **{name: [2, 2, 2]}),
        _conv(f"{name}_of_5", ValueError, name, **{name: (1, 1, 1, 1, 1)}),
        _conv(f"{name}_zero", ValueError, f"{word}.*got 0", **{name: 0}),
        _conv(f"{name}_negative", ValueError, f"{word}.*got -1", **{name: (1, -1)}),
        _conv(f"{name}_zero_of_4", ValueError, f"{word}.*got 0", **{name: [1, 0, 1, 1]}),
        _conv(f"{name}_batch", ValueError, f"{name}.*batch", **{name: [2, 1, 1, 1]}),
        _conv(f"{name}_channels", ValueError, f"{name}.*depth", **{name: [1, 1, 1, 2]}),
        _conv(
            f"{name}_channels_nchw",
            ValueError,
            f"{name}.*depth",
            input_shape=(1, 4, 5, 6),
            data_format="NCHW",
            **{name: [1, 2, 1, 1]},
        ),
        _conv(f"{name}_text", TypeError, name, **{name: "1"}),
        _conv(f"{name}_float_nan", TypeError, name, **{name: float("nan")}),
        # TensorFlow truncates 1.5 to 1.
        _conv(f"{name}_float", TypeError, name, tensorflow_accepts=True, **{name: 1.5}),
        _conv(
            f"{name}_float_array",
            TypeError,
            name,
            tensorflow_accepts=True,
            **{name: np.array([1.5, 1.0])},
        ),
        _conv(f"{name}_object", TypeError, name, **{name: object()}),
    )
)

_PADDINGS = tuple(
    row
    for make in (_conv, _depthwise)
    for row in (
        make("padding_lower_case", ValueError, "padding='same'", padding="same"),
        make("padding_unknown", ValueError, "padding='FULL'", padding="FULL"),
        make("padding_no_text", ValueError, "padding=''", padding=""),
        make("padding_explicit_text", ValueError, "padding must be a list", padding="EXPLICIT"),
        make("padding_none", TypeError, "padding=None", padding=None),
        make("padding_int", TypeError, "padding=1", padding=1),
        make("padding_three_pairs", ValueError, "padding.*size 4", padding=[(1, 1)] * 3),
        make("padding_no_pairs", ValueError, "padding.*size 2", padding=[0, 1, 1, 0]),
        make("padding_triple", ValueError, "padding", padding=[(0, 0), (1, 1), (1, 1, 1), (0, 0)]),
        make(
            "padding_negative",
            ValueError,
            "nonnegative.*padding",
            padding=[(0, 0), (1, -1), (1, 1), (0, 0)],
        ),
        make("padding_batch", ValueError, "padding.*batch", padding=[(1, 0), *_ONES, (0, 0)]),
        make("padding_depth", ValueError, "padding.*depth", padding=[(0, 0), *_ONES, (0, 1)]),
        make(
            "padding_depth_nchw",
            ValueError,
            "padding.*depth",
            input_shape=(1, 4, 5, 6),
            data_format="NCHW",
            padding=[(0, 0), (1, 1), (1, 1), (0, 0)],
        ),
        make(
            "padding_text_pair", TypeError, "padding", padding=[(0, 0), ("1", "1"), (1, 1), (0, 0)]
        ),
    )
)

_COMMON = tuple(
    row
    for make in (_conv, _depthwise)
    for row in (
        make("format_lower_case", ValueError, "data_format='nhwc'", data_format="nhwc"),
        make("format_vect", ValueError, "data_format='NCHW_VECT_C'", data_format="NCHW_VECT_C"),
        make("format_hwnc", ValueError, "data_format='HWNC'", data_format="HWNC"),
        make("format_no_text", ValueError, "data_format=''", data_format=""),
        make("format_int", TypeError, "data_format=1", data_format=1),
        make("input_rank3", ValueError, "input.*rank", input_shape=(5, 6, 4)),
        make("input_rank0", ValueError, "input.*rank", input_shape=()),
        make("filter_rank3", ValueError, "filter.*rank", filter_shape=(3, 3, 4)),
        make("filter_rank5", ValueError, "filter.*rank", filter_shape=(1, 3, 3, 4, 2)),
        make("no_filter_input_depth", ValueError, "filter.*zero", filter_shape=(3, 3, 0, 2)),
        # With nothing to compute TensorFlow returns before it looks.
        make(
            "no_filter_output_depth",
            ValueError,
            "filter.*zero",
            tensorflow_accepts=True,
            filter_shape=(3, 3, 4, 0),
        ),
        *(
            make(dtype, TypeError, f"dtype.*'{dtype}'", input_dtype=dtype, filter_dtype=dtype)
            for dtype in ("int8", "int64", "complex64", "bool")
        ),
        make("two_dtypes", TypeError, "float32 and float64", filter_dtype="float64"),
        make("two_halves", TypeError, "dtype", input_dtype="float16", filter_dtype="bfloat16"),
        make(
            "filter_above_valid",
            ValueError,
            "subtracting 6 from 5.*height",
            filter_shape=(6, 3, 4, 2),
            padding="VALID",
        ),
        make(
            "filter_width_above_valid",
            ValueError,
            "subtracting 7 from 6.*width",
            filter_shape=(3, 7, 4, 2),
            padding="VALID",
        ),
        make(
            "filter_above_batch0",
            ValueError,
            "subtracting 6 from 5",
            input_shape=(0, 5, 6, 4),
            filter_shape=(6, 3, 4, 2),
            padding="VALID",
        ),
        make(
            "filter_above_padded",
            ValueError,
            "subtracting 9 from 8",
            filter_shape=(9, 3, 4, 2),
            padding=[(0, 0), (1, 2), (0, 0), (0, 0)],
        ),
        make(
            "height0_valid",
            ValueError,
            "subtracting 1 from 0",
            input_shape=(1, 0, 6, 4),
            filter_shape=(1, 1, 4, 2),
            padding="VALID",
        ),
        make(
            "height0_explicit_as_same",
            ValueError,
            "subtracting 3 from 2",
            input_shape=(1, 0, 6, 4),
            padding=[(0, 0), (1, 1), (1, 1), (0, 0)],
        ),
    )
)

_CONV2D = (
    _conv("input_depth", ValueError, r"input \(4\).*filter \(3\)", filter_shape=(3, 3, 3, 2)),
    _conv("filter_deeper", ValueError, r"input \(4\).*filter \(8\)", filter_shape=(3, 3, 8, 2)),
    _conv("output_depth", ValueError, r"output \(3\).*groups \(2\)", filter_shape=(3, 3, 2, 3)),
    _conv("no_filter_rows", ValueError, "filter.*zero", filter_shape=(0, 3, 4, 2)),
    _conv("no_filter_columns", ValueError, "filter.*zero", filter_shape=(3, 0, 4, 2)),
    _conv("no_channels", ValueError, "groups must not be 0", input_shape=(1, 5, 6, 0)),
    _conv(
        "int32_nchw",
        ValueError,
        "data_format.*int32",
        input_shape=(1, 4, 5, 6),
        input_dtype="int32",
        filter_dtype="int32",
        data_format="NCHW",
    ),
    _conv(
        "dilated_filter_above_valid",
        ValueError,
        "subtracting 7 from 5",
        dilations=3,
        padding="VALID",
    ),
    _conv(
        "filter_above_valid_stride3",
        ValueError,
        "subtracting 7 from 5",
        filter_shape=(7, 3, 4, 2),
        strides=3,
        padding="VALID",
    ),
)

_DEPTHWISE = (
    _depthwise("strides_int", TypeError, "strides=1", strides=1),
    _depthwise("strides_none", TypeError, "strides=None", strides=None),
    _depthwise("strides_text", TypeError, "strides", strides="1111"),
    _depthwise("strides_array", TypeError, "strides", strides=np.ones(4, np.int64)),
    _depthwise("strides_of_1", ValueError, "strides", strides=[1]),
    _depthwise("strides_of_2", ValueError, "strides", strides=(1, 1)),
    _depthwise("strides_of_5", ValueError, "strides", strides=[1] * 5),
    _depthwise("strides_zero", ValueError, "Stride.*got 0", strides=[1, 0, 0, 1]),
    _depthwise("strides_negative", ValueError, "Stride.*got -1", strides=[1, -1, -1, 1]),
    _depthwise("strides_batch", ValueError, "strides.*batch", strides=[2, 1, 1, 1]),
    _depthwise("strides_channels", ValueError, "strides.*depth", strides=[1, 1, 1, 2]),
    _depthwise(
        "strides_float", TypeError, "strides", tensorflow_accepts=True, strides=[1, 1.5, 1.5, 1]
    ),
    _depthwise("dilations_int", TypeError, "dilations=2", dilations=2),
    _depthwise("dilations_text", TypeError, "dilations='22'", dilations="22"),
    # TensorFlow applies a single rate to the height alone.
    _depthwise("dilations_of_1", ValueError, "dilations", tensorflow_accepts=True, dilations=[2]),
    _depthwise("dilations_of_3", ValueError, "dilations", dilations=[2, 2, 2]),
    _depthwise("dilations_of_4", ValueError, "dilations", dilations=[1, 2, 2, 1]),
    _depthwise("dilations_zero", ValueError, "Dilation rate.*got 0", dilations=[0, 1]),
    _depthwise("dilations_negative", ValueError, "Dilation rate.*got -1", dilations=[1, -1]),
    _depthwise("dilations_float", TypeError, "dilations", dilations=[1.5, 1.5]),
    # TensorFlow logs a warning and computes something else.
    _depthwise(
        "stride_and_dilation",
        ValueError,
        "strides.*dilations",
        tensorflow_accepts=True,
        strides=[1, 2, 2, 1],
        dilations=[2, 2],
    ),
    _depthwise("input_rank5", ValueError, "input.*rank", input_shape=(1, 1, 5, 6, 4)),
    _depthwise("filter_depth", ValueError, "depth: 4 vs 2", filter_shape=(3, 3, 2, 2)),
    _depthwise("filter_depth_1", ValueError, "depth: 4 vs 1", filter_shape=(3, 3, 1, 4)),
    _depthwise("no_channels", ValueError, "depth: 0 vs 4", input_shape=(1, 5, 6, 0)),
    # TensorFlow's depthwise kernel returns zeros.
    _depthwise(
        "no_filter_rows",
        ValueError,
        "filter.*zero",
        tensorflow_accepts=True,
        filter_shape=(0, 3, 4, 2),
    ),
    _depthwise("int32", TypeError, "'int32'", input_dtype="int32", filter_dtype="int32"),
    _depthwise(
        "dilated_lower_case_padding", ValueError, "padding='same'", padding="same", dilations=[2, 2]
    ),
    _depthwise(
        "dilated_filter_above_valid",
        ValueError,
        "subtracting 7 from 5",
        dilations=[3, 3],
        padding="VALID",
    ),
)

ILLEGAL_CALLS: tuple[IllegalCall, ...] = (*_RATES, *_PADDINGS, *_COMMON, *_CONV2D, *_DEPTHWISE)
