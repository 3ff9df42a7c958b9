"""Evaluates a graph in NumPy, plainly: what everything else in models/ is compared with.

`evaluate` computes in float64 whatever floats the graph has; `compute` one node in the dtypes that it gets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import erf
from typing import Any, Final

import numpy as np

from tvmconv.checking import oracle
from tvmconv.models.graph import ABSENT, Array, Graph, Node
from tvmconv.models.resizing import resize
from tvmconv.problem.rules import ACTIVATIONS
from tvmconv.problem.spec import ConvSpec

Arrays = list[Array | None]


def evaluate(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return a graph's outputs by their public names, floats as float64.

    ``inputs`` has an array of the right shape for each of the graph's inputs. Raises KeyError for one that
    is missing and ValueError for another shape.
    """
    values: dict[str, Array] = {}
    for name, tensor in graph.inputs.items():
        if np.shape(inputs[name]) != tensor.shape:
            raise ValueError(f"{name} has the shape {np.shape(inputs[name])}, not {tensor.shape}")
        values[name] = _wide(np.asarray(inputs[name]))
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    uses.update(graph.outputs.values())
    for node in graph.nodes:
        arrays = [
            None
            if name == ABSENT
            else values[name]
            if name in values
            else _wide(graph.constants[name])
            for name in node.inputs
        ]
        values[node.name] = _wide(compute(node, arrays))
        for name in node.inputs:
            uses[name] -= 1
            if not uses[name]:
                values.pop(name, None)
    return {
        public: values[name] if name in values else _wide(graph.constants[name])
        for public, name in graph.outputs.items()
    }


def compute(node: Node, inputs: Arrays) -> Array:
    """Compute one node from its inputs, None for an absent one, in their dtypes."""
    with np.errstate(all="ignore"):  # infinities and NaN are values, as in the model
        made = np.asarray(_RULES[node.op](node, inputs))
    if made.shape != node.tensor.shape:
        raise ValueError(f"{node.op} {node.name} made {made.shape}, not {node.tensor.shape}")
    return made


def _wide(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _given(array: Array | None) -> Array:
    if array is None:
        raise ValueError("an input is missing")
    return array


def _spec(node: Node, data: Array, window: Array, **options: Any) -> ConvSpec:
    make = ConvSpec.depthwise_conv2d if "depthwise" in node.op else ConvSpec.conv2d
    top, bottom, left, right = node.attributes["pads"]
    padding = [(0, 0), (top, bottom), (left, right), (0, 0)]
    strides, dilations = node.attributes["strides"], node.attributes["dilations"]
    return make(data.shape, window.shape, strides, padding, dilations=dilations, **options)


def _convolution(node: Node, inputs: Arrays) -> Array:
    data, window, bias, residual, slopes = (*inputs, None, None, None)[:5]
    data, window = _given(data), _given(window)
    spec = _spec(node, data, window, bias=bias is not None, residual=residual is not None)
    if residual is not None and residual.shape != spec.output_shape:  # fewer channels
        missing = spec.output_shape[3] - residual.shape[3]
        residual = np.pad(residual, ((0, 0), (0, 0), (0, 0), (0, missing)))
    made = oracle.conv(spec, data, window, bias, residual)
    if slopes is not None:
        return np.where(made < 0, made * slopes, made)
    return oracle.activate(node.attributes["activation"], made)


def _quantized(node: Node, inputs: Arrays) -> Array:
    data, window, bias, scales, limits = map(_given, inputs)
    options = {"dtype": data.dtype, "bias": True, "quantized": node.tensor.dtype}
    spec = _spec(node, data, window, **options)
    return oracle.conv(spec, data, window, bias, scales=scales, limits=limits)


def _quantize(node: Node, inputs: Arrays) -> Array:
    scale, limits = np.float32(node.attributes["scale"]), np.iinfo(node.tensor.dtype)
    scaled = _given(inputs[0]).astype(np.float32) * (np.float32(1) / scale)
    rounded = np.rint(np.nan_to_num(scaled, nan=-np.inf)) + node.attributes["zero_point"]
    return np.asarray(np.clip(rounded, limits.min, limits.max).astype(node.tensor.dtype))


def _dequantize(node: Node, inputs: Arrays) -> Array:
    centred = _given(inputs[0]).astype(np.int64) - node.attributes["zero_point"]
    return np.asarray(centred.astype(np.float32) * np.float32(node.attributes["scale"]))


def _transposed(node: Node, inputs: Arrays) -> Array:
    data, window, bias = (*inputs, None)[:3]
    data, window = _given(data), _given(window)
    (sh, sw), (top, _, left, _) = node.attributes["strides"], node.attributes["pads"]
    kh, kw, channels, _ = window.shape
    batch, height, width, _ = data.shape
    out_height, out_width = node.attributes["size"]
    whole = np.zeros(
        (
            batch,
            max((height - 1) * sh + kh, top + out_height),
            max((width - 1) * sw + kw, left + out_width),
            channels,
        )
    )
    for i in range(kh):
        for j in range(kw):
            tap = data @ window[i, j].T
            whole[:, i : i + height * sh : sh, j : j + width * sw : sw][:, :height, :width] += tap
    made = whole[:, top : top + out_height, left : left + out_width]
    return oracle.activate(node.attributes["activation"], made if bias is None else made + bias)


def _dense(node: Node, inputs: Arrays) -> Array:
    data, window, bias = (*inputs, None)[:3]
    made = _given(data) @ _given(window)
    return oracle.activate(node.attributes["activation"], made if bias is None else made + bias)


def _matmul(node: Node, inputs: Arrays) -> Array:
    left, right = map(_given, inputs)
    left = left.swapaxes(-1, -2) if node.attributes["transpose_a"] else left
    right = right.swapaxes(-1, -2) if node.attributes["transpose_b"] else right
    return np.asarray(left @ right)


def _pool(node: Node, inputs: Arrays) -> Array:
    data = _given(inputs[0])
    (kh, kw), (sh, sw) = node.attributes["window"], node.attributes["strides"]
    top, bottom, left, right = node.attributes["pads"]
    pads = ((0, 0), (top, bottom), (left, right), (0, 0))

    def windows(array: Array, fill: float) -> Array:
        padded = np.pad(array, pads, constant_values=fill)
        every = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(1, 2))
        return every[:, ::sh, ::sw]

    if node.op == "max_pool2d":
        lowest = -np.inf if data.dtype.kind == "f" else np.iinfo(data.dtype).min
        return np.asarray(windows(data, lowest).max(axis=(-1, -2)))
    sums = windows(data, 0).sum(axis=(-1, -2))
    if node.attributes["count_padding"]:
        return np.asarray(sums / (kh * kw))
    return np.asarray(sums / windows(np.ones_like(data), 0).sum(axis=(-1, -2)))


def _reduction(node: Node, inputs: Arrays) -> Array:
    axes, keep = tuple(node.attributes["axes"]), node.attributes["keepdims"]
    reduce: Any = getattr(np, node.op)
    return np.asarray(reduce(_given(inputs[0]), axis=axes, keepdims=keep))


def _softmax(node: Node, inputs: Arrays) -> Array:
    data, axis = _given(inputs[0]), node.attributes["axis"]
    shifted = data - data.max(axis=axis, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return np.asarray(logarithms if node.op == "log_softmax" else np.exp(logarithms))


def _slice(node: Node, inputs: Arrays) -> Array:
    ends = zip(*(node.attributes[name] for name in ("begin", "end", "strides")), strict=True)
    parts = [slice(begin, None if end < 0 else end, step) for begin, end, step in ends]
    return np.asarray(_given(inputs[0])[tuple(parts)])


def _pad(node: Node, inputs: Arrays) -> Array:
    data, pads, mode = _given(inputs[0]), node.attributes["pads"], node.attributes["mode"]
    if mode == "constant":
        return np.pad(data, pads, constant_values=node.attributes["value"])
    return np.pad(data, pads, mode=mode)


def _depth_to_space(node: Node, inputs: Arrays) -> Array:
    data, block = _given(inputs[0]), node.attributes["block"]
    batch, height, width, _ = data.shape
    split = data.reshape(batch, height, width, block, block, -1)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(node.tensor.shape)


def _space_to_depth(node: Node, inputs: Arrays) -> Array:
    data, block = _given(inputs[0]), node.attributes["block"]
    batch, height, width, channels = data.shape
    split = data.reshape(batch, height // block, block, width // block, block, channels)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(node.tensor.shape)


def _divide(left: Array, right: Array) -> Array:
    # TensorFlow's division of integers rounds towards zero.
    return left / right if left.dtype.kind == "f" else np.trunc(left / right).astype(left.dtype)


def _elementwise(function: Callable[..., Any]) -> Callable[[Node, Arrays], Any]:
    return lambda _node, inputs: function(*map(_given, inputs))


def _activation(name: str) -> Callable[[Node, Arrays], Any]:
    return lambda _node, inputs: oracle.activate(name, _given(inputs[0]))


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(x, 0))


_ERF: Final = np.vectorize(erf, otypes=[np.float64])
_UNARY: Final[Mapping[str, Callable[..., Any]]] = {
    "tanh": np.tanh,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "abs": np.abs,
    "negative": np.negative,
    "square": np.square,
    "erf": _ERF,
    "gelu": lambda x: x * (1 + _ERF(x / np.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "softplus": _softplus,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,  # half to even
    "sin": np.sin,
    "cos": np.cos,
    "not": np.logical_not,
}
_BINARY: Final[Mapping[str, Callable[..., Any]]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": _divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "power": np.power,
    "squared_difference": lambda x, y: np.square(x - y),
    "floor_divide": np.floor_divide,
    "floor_mod": np.mod,
    "prelu": lambda x, slopes: np.where(x < 0, x * slopes, x),
    "and": np.logical_and,
    "or": np.logical_or,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "select": np.where,
}
_RULES: Final[Mapping[str, Callable[[Node, Arrays], Any]]] = {
    **{name: _activation(name) for name in ACTIVATIONS},
    **{name: _elementwise(function) for name, function in {**_UNARY, **_BINARY}.items()},
    **dict.fromkeys(("mean", "sum", "max", "min", "prod"), _reduction),
    "conv2d": _convolution,
    "depthwise_conv2d": _convolution,
    "quantized_conv2d": _quantized,
    "quantized_depthwise_conv2d": _quantized,
    "quantize": _quantize,
    "dequantize": _dequantize,
    "conv2d_transpose": _transposed,
    "dense": _dense,
    "matmul": _matmul,
    "max_pool2d": _pool,
    "average_pool2d": _pool,
    "clip": lambda node, inputs: np.clip(
        _given(inputs[0]), node.attributes["low"], node.attributes["high"]
    ),
    "leaky_relu": lambda node, inputs: np.where(
        _given(inputs[0]) < 0, node.attributes["alpha"] * _given(inputs[0]), inputs[0]
    ),
    "elu": lambda node, inputs: np.where(
        _given(inputs[0]) < 0, node.attributes["alpha"] * np.expm1(_given(inputs[0])), inputs[0]
    ),
    "softmax": _softmax,
    "log_softmax": _softmax,
    "reshape": lambda node, inputs: _given(inputs[0]).reshape(node.attributes["shape"]),
    "transpose": lambda node, inputs: _given(inputs[0]).transpose(node.attributes["permutation"]),
    "concat": lambda node, inputs: np.concatenate(
        list(map(_given, inputs)), node.attributes["axis"]
    ),
    "slice": _slice,
    "pad": _pad,
    "resize": lambda node, inputs: resize(_given(inputs[0]), **node.attributes),
    "depth_to_space": _depth_to_space,
    "space_to_depth": _space_to_depth,
    "broadcast_to": lambda node, inputs: np.broadcast_to(
        _given(inputs[0]), node.attributes["shape"]
    ),
    "gather": lambda node, inputs: np.take(
        _given(inputs[0]), _given(inputs[1]), node.attributes["axis"]
    ),
    "arg_max": lambda node, inputs: np.argmax(_given(inputs[0]), node.attributes["axis"]).astype(
        node.attributes["dtype"]
    ),
    "cast": lambda node, inputs: _given(inputs[0]).astype(node.attributes["dtype"]),
}
