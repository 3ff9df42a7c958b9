"""Hypothesis strategies for random legal convolutions, small enough to compute by brute force."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from tvmconv.problem.rules import ACTIVATIONS, BYTE_DTYPES, INTEGER_ACTIVATIONS, OP_DTYPES, PRELU
from tvmconv.problem.spec import ConvSpec

# Explicit padding as ((top, bottom), (left, right)).
Padding = str | tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Call:
    """A legal convolution as a caller writes it, before padding is resolved; shapes are NHWC."""

    op: str
    leading: tuple[int, ...]
    size: tuple[int, int]
    channels: int
    filter_shape: tuple[int, int, int, int]
    strides: tuple[int, int]
    padding: Padding
    dilations: tuple[int, int]
    data_format: str
    dtype: str
    bias: bool
    activation: str | None
    residual: bool
    tf32: bool
    residual_channels: int | None

    def padding_argument(self, data_format: str) -> str | list[tuple[int, int]]:
        if isinstance(self.padding, str):
            return self.padding
        none = (0, 0)
        if data_format == "NHWC":
            return [none, *self.padding, none]
        return [none, none, *self.padding]

    def spec(self) -> ConvSpec:
        image = (*self.size, self.channels)
        if self.data_format == "NCHW":
            image = (self.channels, *self.size)
        make = ConvSpec.conv2d if self.op == "conv2d" else ConvSpec.depthwise_conv2d
        permission = [self.tf32] if self.op == "conv2d" else []
        return make(
            (*self.leading, *image),
            self.filter_shape,
            self.strides,
            self.padding_argument(self.data_format),
            self.data_format,
            self.dilations,
            self.dtype,
            self.bias,
            self.activation,
            self.residual,
            *permission,
            residual_channels=self.residual_channels,
        )


@st.composite
def legal_calls(
    draw: st.DrawFn,
    max_size: int = 7,
    ops: tuple[str, ...] = ("conv2d", "depthwise_conv2d"),
    dtypes: tuple[str, ...] | None = None,
    equal_depthwise_strides: bool = False,
    empty: bool = True,
) -> Call:
    """Draw a legal call with at most about ``max_size`` pixels beyond the filter in each dimension.

    ``equal_depthwise_strides`` leaves out the one extension that TensorFlow cannot compute;
    ``empty=False`` leaves out inputs and outputs without elements.
    """
    op = draw(st.sampled_from(ops))
    dtype = draw(st.sampled_from([d for d in OP_DTYPES[op] if dtypes is None or d in dtypes]))
    small = st.integers(1, 3)
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    strides = (draw(small), draw(small))
    dilations = (draw(small), draw(small))
    if op == "depthwise_conv2d":
        if draw(st.booleans()):
            strides = (1, 1)
        else:
            dilations = (1, 1)
        if equal_depthwise_strides:
            strides = (strides[0], strides[0])
        channels, multiplier = draw(st.integers(1, 9)), draw(small)
        filter_shape = (*kernel, channels, multiplier)
        leading = (draw(st.integers(0 if empty else 1, 2)),)
    else:
        groups, group_in, group_out = draw(small), draw(st.integers(1, 5)), draw(small)
        channels, filter_shape = groups * group_in, (*kernel, group_in, groups * group_out)
        lengths = st.integers(0 if empty else 1, 2)
        leading = tuple(draw(st.lists(lengths, min_size=1, max_size=3)))
    pad = st.integers(0, 5)
    padding: Padding = draw(
        st.sampled_from(("SAME", "VALID")) | st.tuples(st.tuples(pad, pad), st.tuples(pad, pad))
    )
    smallest = [0 if empty else 1] * 2
    if padding != "SAME":
        pads = (0, 0) if isinstance(padding, str) else (sum(padding[0]), sum(padding[1]))
        extents = [(kernel[i] - 1) * dilations[i] + 1 for i in (0, 1)]
        smallest = [max(extents[i] - pads[i], smallest[i]) for i in (0, 1)]
    size = tuple(draw(st.integers(least, least + max_size)) for least in smallest)
    activations = INTEGER_ACTIVATIONS if "int" in dtype else (*ACTIVATIONS, PRELU)
    out_channels = filter_shape[3] * (channels if op == "depthwise_conv2d" else 1)
    residual = draw(st.booleans())
    narrow = residual and out_channels > 1 and draw(st.booleans())
    return Call(
        op=op,
        leading=leading,
        size=(size[0], size[1]),
        channels=channels,
        filter_shape=filter_shape,
        strides=strides,
        padding=padding,
        dilations=dilations,
        data_format="NHWC" if dtype == "int32" else draw(st.sampled_from(("NHWC", "NCHW"))),
        dtype=dtype,
        bias=draw(st.booleans()),
        activation=draw(st.sampled_from((None, *activations))),
        residual=residual,
        residual_channels=draw(st.integers(1, out_channels - 1)) if narrow else None,
        tf32=op == "conv2d" and dtype == "float32" and draw(st.booleans()),
    )


def legal_specs(
    max_size: int = 7,
    ops: tuple[str, ...] = ("conv2d", "depthwise_conv2d"),
    dtypes: tuple[str, ...] | None = None,
    empty: bool = True,
) -> st.SearchStrategy[ConvSpec]:
    """Draw legal specs; the arguments are those of `legal_calls`."""
    return legal_calls(max_size=max_size, ops=ops, dtypes=dtypes, empty=empty).map(Call.spec)


@st.composite
def quantized_specs(draw: st.DrawFn, max_size: int = 7, empty: bool = True) -> ConvSpec:
    """Draw legal specs whose bytes become bytes."""
    spec = draw(legal_specs(max_size=max_size, dtypes=BYTE_DTYPES, empty=empty))
    out = draw(st.sampled_from(BYTE_DTYPES))
    return replace(spec.core, bias=True, quantized=out)
