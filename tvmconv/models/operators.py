"""Every operator of a `graph.Graph`: its inputs, attributes and the shape that it makes.

Images are NHWC, pads (top, bottom, left, right), pairs (height, width); broadcasting is NumPy's. Readers
express a model in these, and add here only what cannot be expressed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from tvmconv.errors import ModelError
from tvmconv.problem.rules import ACTIVATIONS

Shape = tuple[int, ...]
Shapes = Sequence[Shape | None]
Attributes = Mapping[str, Any]

# Of one argument, element by element.
UNARY: Final = (
    *ACTIVATIONS,
    "tanh", "exp", "log", "sqrt", "rsqrt", "abs", "negative", "square", "erf", "gelu", "gelu_tanh", "mish",
    "softplus", "floor", "ceil", "round", "sin", "cos", "not",
)  # fmt: skip
# Of two; prelu's second is the slopes of what is negative.
BINARY: Final = (
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "squared_difference",
    "floor_divide", "floor_mod", "prelu", "and", "or",
)  # fmt: skip
COMPARISONS: Final = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
REDUCTIONS: Final = ("mean", "sum", "max", "min", "prod")


@dataclass(frozen=True)
class Operator:
    """What a node of that name computes.

    Attributes:
        inputs: their names; those behind a question mark may be absent; a star: any number.
        attributes: names of all attributes; each node has every one of them.
        shape: from the shapes of the inputs (None for an absent one) and the attributes.
        dtype: of the result where it is not that of the first input.
    """

    inputs: tuple[str, ...]
    attributes: tuple[str, ...]
    shape: Callable[[Shapes, Attributes], Shape]
    dtype: str | None = None


def infer_shape(op: str, shapes: Shapes, attributes: Attributes, place: str) -> Shape:
    """Return the shape that a node makes.

    Raises ModelError, which names ``place``, where the operator is unknown, inputs or attributes are missing
    or too many, or shapes do not fit each other.
    """
    operator = OPERATORS.get(op)
    if operator is None:
        raise ModelError(f"{place}: {op!r} is no operator of tvmconv.models.operators")
    if set(attributes) != set(operator.attributes):
        raise ModelError(
            f"{place}: {op} has the attributes {operator.attributes}, not {tuple(attributes)}"
        )
    most = len(operator.inputs)
    least = sum(not name.startswith("?") for name in operator.inputs)
    starred = bool(operator.inputs) and operator.inputs[-1] == "*"
    if len(shapes) < least or (len(shapes) > most and not starred) or None in shapes[:least]:
        raise ModelError(
            f"{place}: {op} takes {operator.inputs}, but {len(shapes)} inputs are given"
        )
    try:
        shape = operator.shape(shapes, attributes)
    except (ValueError, IndexError, TypeError, ZeroDivisionError) as error:
        given = ", ".join(map(str, shapes))
        raise ModelError(f"{place}: {op} of {given} with {dict(attributes)}: {error}") from error
    if any(extent < 0 for extent in shape):
        raise ModelError(
            f"{place}: {op} of {shapes} with {dict(attributes)} makes the shape {shape}"
        )
    return shape


def broadcast(*shapes: Shape) -> Shape:
    """NumPy's rule; ValueError where it does not hold."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    result = []
    for extents in zip(*padded, strict=True):
        wide = {extent for extent in extents if extent != 1}
        if len(wide) > 1:
            raise ValueError("these do not broadcast against each other")
        result.append(wide.pop() if wide else 1)
    return tuple(result)


def windows(size: int, before: int, after: int, window: int, stride: int, dilation: int = 1) -> int:
    """How many windows fit along one axis."""
    return (size + before + after - (window - 1) * dilation - 1) // stride + 1


def _first(shapes: Shapes, _attributes: Attributes) -> Shape:
    return _given(shapes[0])


def _given(shape: Shape | None) -> Shape:
    if shape is None:
        raise ValueError("an input is missing")
    return shape


def _all(shapes: Shapes, _attributes: Attributes) -> Shape:
    return broadcast(*map(_given, shapes))


def _image(size: tuple[int, int], shapes: Shapes, attributes: Attributes, channels: int) -> Shape:
    batch, height, width, _ = _given(shapes[0])
    top, bottom, left, right = attributes["pads"]
    (sh, sw), (dh, dw) = attributes["strides"], attributes.get("dilations", (1, 1))
    return (
        batch,
        windows(height, top, bottom, size[0], sh, dh),
        windows(width, left, right, size[1], sw, dw),
        channels,
    )


def _conv2d(shapes: Shapes, attributes: Attributes) -> Shape:
    data, (kh, kw, depth, channels) = _given(shapes[0]), _given(shapes[1])
    if depth == 0 or data[3] % depth or channels % (data[3] // depth):
        raise ValueError("channels of the data and of the filter do not fit")
    return _image((kh, kw), shapes, attributes, channels)


def _depthwise(shapes: Shapes, attributes: Attributes) -> Shape:
    data, (kh, kw, channels, multiplier) = _given(shapes[0]), _given(shapes[1])
    if data[3] != channels:
        raise ValueError("channels of the data and of the filter differ")
    return _image((kh, kw), shapes, attributes, channels * multiplier)


def _transposed(shapes: Shapes, attributes: Attributes) -> Shape:
    (batch, _, _, channels), window = _given(shapes[0]), _given(shapes[1])
    if window[3] != channels:
        raise ValueError("channels of the data and of the filter differ")
    return (batch, *attributes["size"], window[2])


def _dense(shapes: Shapes, _attributes: Attributes) -> Shape:
    data, (depth, channels) = _given(shapes[0]), _given(shapes[1])
    if data[-1] != depth:
        raise ValueError("the last extents of the data and the first of the filter differ")
    return (*data[:-1], channels)


def _matmul(shapes: Shapes, attributes: Attributes) -> Shape:
    left, right = list(_given(shapes[0])), list(_given(shapes[1]))
    if attributes["transpose_a"]:
        left[-2:] = left[:-3:-1]
    if attributes["transpose_b"]:
        right[-2:] = right[:-3:-1]
    if left[-1] != right[-2]:
        raise ValueError("the inner extents differ")
    return (*broadcast(tuple(left[:-2]), tuple(right[:-2])), left[-2], right[-1])


def _pool(shapes: Shapes, attributes: Attributes) -> Shape:
    return _image(attributes["window"], shapes, attributes, _given(shapes[0])[3])


def _reduction(shapes: Shapes, attributes: Attributes) -> Shape:
    shape, axes = _given(shapes[0]), set(attributes["axes"])
    if any(axis not in range(len(shape)) for axis in axes):
        raise ValueError("axes out of range")
    if attributes["keepdims"]:
        return tuple(1 if axis in axes else extent for axis, extent in enumerate(shape))
    return tuple(extent for axis, extent in enumerate(shape) if axis not in axes)


def _reshape(shapes: Shapes, attributes: Attributes) -> Shape:
    shape = tuple(attributes["shape"])
    if prod(shape) != prod(_given(shapes[0])):
        raise ValueError("the number of elements differs")
    return shape


def _transpose(shapes: Shapes, attributes: Attributes) -> Shape:
    shape, order = _given(shapes[0]), attributes["permutation"]
    if sorted(order) != list(range(len(shape))):
        raise ValueError("not a permutation of the axes")
    return tuple(shape[axis] for axis in order)


def _concat(shapes: Shapes, attributes: Attributes) -> Shape:
    axis, (first, *others) = attributes["axis"], map(_given, shapes)
    if any(
        shape[:axis] + shape[axis + 1 :] != first[:axis] + first[axis + 1 :] for shape in others
    ):
        raise ValueError("the other extents differ")
    total = first[axis] + sum(shape[axis] for shape in others)
    return (*first[:axis], total, *first[axis + 1 :])


def _slice(shapes: Shapes, attributes: Attributes) -> Shape:
    begin, end, strides = attributes["begin"], attributes["end"], attributes["strides"]
    ranges = zip(_given(shapes[0]), begin, end, strides, strict=True)
    extents = []
    for extent, first, last, step in ranges:
        if step == 0 or not (0 <= first <= extent and -1 <= last <= extent):
            raise ValueError("a slice lies outside")
        extents.append(len(range(first, last, step)))
    return tuple(extents)


def _pad(shapes: Shapes, attributes: Attributes) -> Shape:
    pairs = zip(_given(shapes[0]), attributes["pads"], strict=True)
    return tuple(before + extent + after for extent, (before, after) in pairs)


def _resize(shapes: Shapes, attributes: Attributes) -> Shape:
    batch, _, _, channels = _given(shapes[0])
    return (batch, *attributes["size"], channels)


def _depth_to_space(shapes: Shapes, attributes: Attributes) -> Shape:
    (batch, height, width, channels), block = _given(shapes[0]), attributes["block"]
    if channels % (block * block):
        raise ValueError("channels are no multiple of the block's")
    return batch, height * block, width * block, channels // (block * block)


def _space_to_depth(shapes: Shapes, attributes: Attributes) -> Shape:
    (batch, height, width, channels), block = _given(shapes[0]), attributes["block"]
    if height % block or width % block:
        raise ValueError("the image is no multiple of the block")
    return batch, height // block, width // block, channels * block * block


def _broadcast_to(shapes: Shapes, attributes: Attributes) -> Shape:
    shape = tuple(attributes["shape"])
    if broadcast(_given(shapes[0]), shape) != shape:
        raise ValueError("it does not broadcast to that shape")
    return shape


def _gather(shapes: Shapes, attributes: Attributes) -> Shape:
    shape, axis = _given(shapes[0]), attributes["axis"]
    return (*shape[:axis], *_given(shapes[1]), *shape[axis + 1 :])


def _arg_max(shapes: Shapes, attributes: Attributes) -> Shape:
    return _reduction(shapes, {"axes": (attributes["axis"],), "keepdims": False})


_CONV = ("strides", "pads", "dilations", "activation")
_QUANTIZED = ("data", "filter", "bias", "scales", "limits")
_POOL = ("window", "strides", "pads")
# residual has the shape of the result, or fewer channels, the rest being zeros, and is added before the
# activation; slopes, one a channel, are those of a prelu in place of the activation.
OPERATORS: Final[Mapping[str, Operator]] = {
    "conv2d": Operator(("data", "filter", "?bias", "?residual", "?slopes"), _CONV, _conv2d),
    "depthwise_conv2d": Operator(
        ("data", "filter", "?bias", "?residual", "?slopes"), _CONV, _depthwise
    ),
    # Of bytes, as `problem.quantized` says; bias, scales and limits are those of its kernels.
    "quantized_conv2d": Operator(_QUANTIZED, ("strides", "pads", "dilations", "dtype"), _conv2d),
    "quantized_depthwise_conv2d": Operator(
        _QUANTIZED, ("strides", "pads", "dilations", "dtype"), _depthwise
    ),
    # clamp(round(data / scale) + zero_point), halves to even, and scale * (data - zero_point).
    "quantize": Operator(("data",), ("scale", "zero_point", "dtype"), _first),
    "dequantize": Operator(("data",), ("scale", "zero_point"), _first, "float32"),
    # As tf.nn.conv2d_transpose: filter [height, width, out, in]; of the whole result, pads are cut off
    # and the rest is cut or filled up with zeros to ``size``, then bias is added.
    "conv2d_transpose": Operator(
        ("data", "filter", "?bias"), ("strides", "pads", "size", "activation"), _transposed
    ),
    # data [..., in], filter [in, out].
    "dense": Operator(("data", "filter", "?bias"), ("activation",), _dense),
    "matmul": Operator(("left", "right"), ("transpose_a", "transpose_b"), _matmul),
    "max_pool2d": Operator(("data",), _POOL, _pool),
    # count_padding: whether padded pixels count in the divisor.
    "average_pool2d": Operator(("data",), (*_POOL, "count_padding"), _pool),
    **{name: Operator(("data",), ("axes", "keepdims"), _reduction) for name in REDUCTIONS},
    **{name: Operator(("data",), (), _first) for name in UNARY},
    **{name: Operator(("left", "right"), (), _all) for name in BINARY},
    **{name: Operator(("left", "right"), (), _all, "bool") for name in COMPARISONS},
    "clip": Operator(("data",), ("low", "high"), _first),
    "leaky_relu": Operator(("data",), ("alpha",), _first),
    "elu": Operator(("data",), ("alpha",), _first),
    # Takes ``left`` where the condition, a bool, holds.
    "select": Operator(
        ("condition", "left", "right"),
        ("dtype",),
        lambda shapes, _: broadcast(*map(_given, shapes)),
    ),
    "softmax": Operator(("data",), ("axis",), _first),
    "log_softmax": Operator(("data",), ("axis",), _first),
    "reshape": Operator(("data",), ("shape",), _reshape),
    "transpose": Operator(("data",), ("permutation",), _transpose),
    "concat": Operator(("data", "*"), ("axis",), _concat),
    # end is exclusive, and -1 behind the first element of a negative stride.
    "slice": Operator(("data",), ("begin", "end", "strides"), _slice),
    # pads: a pair an axis; mode: constant, reflect or edge.
    "pad": Operator(("data",), ("pads", "value", "mode"), _pad),
    # method: nearest, bilinear or cubic; coordinates: half_pixel, align_corners or asymmetric; rounding of
    # nearest: floor, round (half away from zero), half_down or ceil.
    "resize": Operator(("data",), ("size", "method", "coordinates", "rounding"), _resize),
    # TensorFlow's order: a block's rows, its columns, then channels.
    "depth_to_space": Operator(("data",), ("block",), _depth_to_space),
    "space_to_depth": Operator(("data",), ("block",), _space_to_depth),
    "broadcast_to": Operator(("data",), ("shape",), _broadcast_to),
    "gather": Operator(("data", "indices"), ("axis",), _gather),
    # Index of the largest element along an axis, of the first where several are; the axis is gone.
    "arg_max": Operator(("data",), ("axis", "dtype"), _arg_max),
    "cast": Operator(("data",), ("dtype",), _first),
}
