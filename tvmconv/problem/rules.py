"""Which combinations of shapes, rates and types are a convolution that TensorFlow would run.

The rules are those of TensorFlow's graph mode, which knows all shapes before it runs anything;
eager mode differs from one CPU kernel to the next. `tvmconv.problem.arguments` knows the forms of single
arguments; here they meet.
"""

from __future__ import annotations

from typing import Any, Final

from tvmconv.problem.arguments import (
    DATA_FORMATS,
    check_rates,
    check_window_fits,
    data_format_name,
    dtype_name,
    resolve_padding,
    same_pads,
    shape,
    spatial_pair,
)
from tvmconv.problem.fields import Fields, FilterShape, Pads, Pair

HALF_DTYPES: Final = ("float16", "bfloat16")  # summed in float32
FLOAT_DTYPES: Final = (*HALF_DTYPES, "float32", "float64")
# int32 is undocumented in TensorFlow, but its conv2d has it and its own tests use it.
TENSORFLOW_DTYPES: Final = {"conv2d": (*FLOAT_DTYPES, "int32"), "depthwise_conv2d": FLOAT_DTYPES}
# Beyond TensorFlow: an input of 8 bits has a filter of int8 and an output of int32.
BYTE_DTYPES: Final = ("int8", "uint8")
OP_DTYPES: Final = {op: (*dtypes, *BYTE_DTYPES) for op, dtypes in TENSORFLOW_DTYPES.items()}
# Bytes: a cache line, the widest vector register, and what TVM assumes of an array unless it is told.
ALIGNMENT: Final = 64
ITEM_BYTES: Final = {
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "int32": 4,
    "int8": 1,
    "uint8": 1,
}
# How a key and a workload's name spell float32 whose products may be rounded to TF32.
TF32: Final = "tf32"
ACTIVATIONS: Final = ("relu", "relu6", "hard_swish", "silu", "sigmoid", "hard_sigmoid")
INTEGER_ACTIVATIONS: Final = ("relu", "relu6")
# The activation that has an operand of its own, a slope for each output channel.
PRELU: Final = "prelu"
# Fits in int64 with room for sums, and in the 18 digits that a key has for it.
MAX_INTEGER: Final = 10**18 - 1

# ConvSpec's fields from input_shape to dtype, in its order.
CanonicalFields = tuple[tuple[int, ...], FilterShape, Pair, Pads, Pair, str, str]


def summed_in(dtype: str) -> str:
    """The dtype of a float's sums."""
    return "float32" if dtype in HALF_DTYPES else dtype


def image_extents(extents: tuple[int, ...], data_format: str) -> tuple[int, int, int]:
    """Return (height, width, channels) of a shape of rank >= 3 in ``data_format`` order."""
    a, b, c = extents[-3:]
    return (a, b, c) if data_format == "NHWC" else (b, c, a)


def canonical_fields(
    op: str,
    input_shape: object,
    filter_shape: object,
    strides: object,
    padding: object,
    data_format: object,
    dilations: object,
    dtype: object,
) -> CanonicalFields:
    """Return the fields of a `ConvSpec` from arguments in any form that `ConvSpec.conv2d` takes."""
    name = dtype_name(dtype, OP_DTYPES[op], f"{op}'s input and filter")
    extents = shape(input_shape, "input")
    window = _checked_ranks(op, extents, shape(filter_shape, "filter"))
    layout = data_format_name(data_format)
    steps = spatial_pair(strides, "strides", layout)
    rates = spatial_pair(dilations, "dilations", layout)
    # Before padding is derived from them, so that a number too large is named as what was given.
    for field, pair in (("strides", steps), ("dilations", rates)):
        _check_int_tuple(field, pair, 2)
    height, width, _ = image_extents(extents, layout)
    pads = resolve_padding(padding, layout, (height, width), window[:2], steps, rates)
    return extents, window, steps, pads, rates, layout, name


def check_fields(spec: Fields) -> None:
    """Raise the ``TypeError`` or ``ValueError`` that says why ``spec`` is no legal convolution."""
    if spec.op not in OP_DTYPES:
        raise ValueError(f"op must be one of {', '.join(OP_DTYPES)}, but got op={spec.op!r}.")
    dtype_name(spec.dtype, OP_DTYPES[spec.op], f"{spec.op}'s input and filter")
    lengths = {"filter_shape": 4, "strides": 2, "pads": 4, "dilations": 2}
    for field in ("input_shape", *lengths):
        _check_int_tuple(field, getattr(spec, field), lengths.get(field))
    _checked_ranks(spec.op, spec.input_shape, spec.filter_shape)
    if spec.data_format not in DATA_FORMATS:
        raise ValueError(
            f'data_format must be "NHWC" or "NCHW", but got data_format={spec.data_format!r}.'
        )
    if spec.dtype == "int32" and spec.data_format != "NHWC":
        raise ValueError('data_format of an int32 conv2d must be "NHWC", but got "NCHW".')
    check_rates(spec.strides, "strides", spec.strides)
    check_rates(spec.dilations, "dilations", spec.dilations)
    if spec.op == "depthwise_conv2d" and max(spec.strides) > 1 and max(spec.dilations) > 1:
        raise ValueError(
            "depthwise_conv2d requires all strides to be 1 if any of the dilations is greater "
            f"than 1, but got strides={spec.strides} and dilations={spec.dilations}."
        )
    _check_channels(spec)
    _check_size(spec)
    _check_epilogue(spec)
    _check_tf32(spec)
    _check_quantized(spec)


def _check_int_tuple(field: str, value: Any, length: int | None) -> None:
    is_tuple = isinstance(value, tuple) and len(value) == (length or len(value))
    if not is_tuple or any(type(item) is not int for item in value):
        kind = "a tuple of ints" if length is None else f"a tuple of {length} ints"
        raise TypeError(
            f"{field} must be {kind}, but got {field}={value!r}. "
            "ConvSpec.conv2d and ConvSpec.depthwise_conv2d accept other forms."
        )
    if any(item < 0 for item in value):
        raise ValueError(f"{field} must not be negative, but got {field}={value!r}.")
    if any(item > MAX_INTEGER for item in value):
        raise ValueError(f"{field} must be below 10**18, but got {field}={value!r}.")


def _checked_ranks(op: str, extents: tuple[int, ...], window: tuple[int, ...]) -> FilterShape:
    if len(extents) < 4 or (op == "depthwise_conv2d" and len(extents) != 4):
        wanted = "4 or more" if op == "conv2d" else "exactly 4"
        raise ValueError(
            f"The input of {op} must be of rank {wanted}, but its shape {extents} is of rank "
            f"{len(extents)}. Add a batch dimension of 1, or merge the leading ones."
        )
    if len(window) != 4:
        last = "in_channels / groups, out_channels" if op == "conv2d" else "in_channels, multiplier"
        raise ValueError(
            f"The filter of {op} must be of rank 4, [height, width, {last}], but its shape "
            f"{window} is of rank {len(window)}."
        )
    a, b, c, d = window
    return a, b, c, d


def _check_channels(spec: Fields) -> None:
    depth, (_, _, filter_depth, out_depth) = spec.in_channels, spec.filter_shape
    if 0 in spec.filter_shape:
        raise ValueError(
            "The filter must not have zero elements (i.e. all dimensions must be non-zero), "
            f"but its shape is {spec.filter_shape}."
        )
    if spec.op == "depthwise_conv2d":
        if depth != filter_depth:
            raise ValueError(
                f"The input and the filter must have the same depth: {depth} vs {filter_depth}, "
                f"in the input's shape {spec.input_shape} ({spec.data_format}) and the filter's "
                f"{spec.filter_shape}."
            )
        return
    if depth == 0:
        raise ValueError(
            "Number of groups must not be 0: the input has no channels, "
            f"its shape is {spec.input_shape} ({spec.data_format})."
        )
    if depth % filter_depth:
        raise ValueError(
            f"Depth of input ({depth}) is not a multiple of input depth of filter "
            f"({filter_depth}), in the input's shape {spec.input_shape} ({spec.data_format}) and "
            f"the filter's {spec.filter_shape}."
        )
    groups = depth // filter_depth
    if out_depth % groups:
        raise ValueError(
            f"Depth of output ({out_depth}) is not a multiple of the number of groups ({groups}), "
            f"which is the input's depth {depth} / the filter's {filter_depth}."
        )


def _check_size(spec: Fields) -> None:
    axes = (
        ("height", spec.in_height, spec.pads[:2], 0),
        ("width", spec.in_width, spec.pads[2:], 1),
    )
    for axis, size, pads, i in axes:
        kernel, stride, dilation = spec.filter_shape[i], spec.strides[i], spec.dilations[i]
        # SAME turns an input without rows into an output without rows, though no window fits.
        if size == 0 and pads == same_pads(size, kernel, stride, dilation):
            continue
        check_window_fits(axis, size, (pads[0], pads[1]), kernel, dilation)


def _check_epilogue(spec: Fields) -> None:
    for field in ("bias", "residual"):
        if not isinstance(getattr(spec, field), bool):
            raise TypeError(
                f"{field} must be True or False, whether there is one, but got "
                f"{getattr(spec, field)!r}. The array itself is passed to the kernel."
            )
    _check_residual_channels(spec)
    allowed = INTEGER_ACTIVATIONS if spec.out_dtype == "int32" else (*ACTIVATIONS, PRELU)
    if spec.activation is not None and spec.activation not in allowed:
        raise ValueError(
            f"activation of a {spec.dtype} {spec.op} must be None or one of {', '.join(allowed)}, "
            f"but got activation={spec.activation!r}."
        )


def _check_residual_channels(spec: Fields) -> None:
    channels = spec.residual_channels
    if channels is None:
        return
    if type(channels) is not int:
        raise TypeError(f"residual_channels must be None or an int, but got {channels!r}.")
    if not spec.residual or not 0 < channels < spec.out_channels:
        raise ValueError(
            "residual_channels is for a residual with fewer channels than the output, at least 1 and below "
            f"{spec.out_channels}, but got residual_channels={channels} with residual={spec.residual}. "
            "Leave it out for a residual of all channels."
        )


def _check_tf32(spec: Fields) -> None:
    if not isinstance(spec.tf32, bool):
        raise TypeError(
            "tf32 must be True or False, whether products may be rounded to TF32, but got "
            f"{spec.tf32!r}."
        )
    if spec.tf32 and (spec.op != "conv2d" or spec.dtype != "float32"):
        raise ValueError(
            "tf32 must be False for anything but a conv2d of float32, but got tf32=True for a "
            f"{spec.op} of {spec.dtype}."
        )


def _check_quantized(spec: Fields) -> None:
    if spec.quantized is None:
        return
    if spec.quantized not in BYTE_DTYPES or spec.dtype not in BYTE_DTYPES:
        raise ValueError(
            f"quantized must be None or, for data of 8 bits, one of {', '.join(BYTE_DTYPES)}, the dtype of "
            f"the output, but got quantized={spec.quantized!r} for a {spec.op} of {spec.dtype}."
        )
    if not spec.bias or spec.residual or spec.activation is not None:
        raise ValueError(
            "A quantised convolution has a bias, which its zero point is folded into, no residual, and "
            f"clamps in place of an activation, but got bias={spec.bias}, residual={spec.residual} and "
            f"activation={spec.activation!r}."
        )
