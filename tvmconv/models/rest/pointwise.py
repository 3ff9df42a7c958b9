"""What operators of one element, or of two, make of it: expressions of TIR."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from tvm import te, tirx

from tvmconv.compute.epilogue import ACTIVATIONS, prelu, to_byte
from tvmconv.models.graph import Node
from tvmconv.problem.rules import FLOAT_DTYPES


def dtype_of(x: Any) -> str:
    """Return the dtype of an expression, or of an element of a tensor that is not one yet."""
    return str(x.dtype if isinstance(x, te.tensor.TensorSlice) else x.ty.dtype)


def _const(value: float, like: Any) -> Any:
    return tirx.const(value, dtype_of(like))


def _is_float(x: Any) -> bool:
    return dtype_of(x) in FLOAT_DTYPES


def _activation(name: str) -> Callable[[Any], Any]:
    return lambda x: ACTIVATIONS[name](x, dtype_of(x))


def _tanh(x: Any) -> Any:
    return tirx.tanh(x)


def _gelu(x: Any) -> Any:
    half, one = _const(0.5, x), _const(1, x)
    return half * x * (one + tirx.erf(x * _const(math.sqrt(0.5), x)))


def _gelu_tanh(x: Any) -> Any:
    half, one = _const(0.5, x), _const(1, x)
    inner = _const(math.sqrt(2 / math.pi), x) * (x + _const(0.044715, x) * x * x * x)
    return half * x * (one + tirx.tanh(inner))


def _softplus(x: Any) -> Any:
    zero, one = _const(0, x), _const(1, x)
    return tirx.max(x, zero) + tirx.log(one + tirx.exp(-tirx.abs(x)))


def _abs(x: Any) -> Any:
    return tirx.abs(x)


_UNARY: Final[Mapping[str, Callable[[Any], Any]]] = {
    **{name: _activation(name) for name in ACTIVATIONS if name is not None},
    "tanh": _tanh,
    "exp": tirx.exp,
    "log": tirx.log,
    "sqrt": tirx.sqrt,
    "rsqrt": lambda x: _const(1, x) / tirx.sqrt(x),
    "abs": _abs,
    "negative": lambda x: _const(0, x) - x if not _is_float(x) else _const(-1, x) * x,
    "square": lambda x: x * x,
    "erf": tirx.erf,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "mish": lambda x: x * tirx.tanh(_softplus(x)),
    "softplus": _softplus,
    "floor": tirx.floor,
    "ceil": tirx.ceil,
    "round": tirx.nearbyint,  # half to even, as TensorFlow
    "sin": tirx.sin,
    "cos": tirx.cos,
    "not": lambda x: tirx.Not(x),
}


def _quotient(x: Any, y: Any) -> Any:
    """Of integers towards zero, as TensorFlow's DIV."""
    return x / y if _is_float(x) else tirx.truncdiv(x, y)


def _floor_divide(x: Any, y: Any) -> Any:
    return tirx.floor(x / y) if _is_float(x) else tirx.floordiv(x, y)


def _floor_mod(x: Any, y: Any) -> Any:
    return x - tirx.floor(x / y) * y if _is_float(x) else tirx.floormod(x, y)


def _power(x: Any, y: Any) -> Any:
    if _is_float(x):
        return tirx.power(x, y)
    return tirx.power(x.astype("float64"), y.astype("float64")).astype(dtype_of(x))


_BINARY: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": _quotient,
    "maximum": tirx.max,
    "minimum": tirx.min,
    "power": _power,
    "squared_difference": lambda x, y: (x - y) * (x - y),
    "floor_divide": _floor_divide,
    "floor_mod": _floor_mod,
    "prelu": lambda x, y: prelu(x, y, dtype_of(x)),
    "and": lambda x, y: tirx.And(x, y),
    "or": lambda x, y: tirx.Or(x, y),
    "equal": lambda x, y: tirx.EQ(x, y),
    "not_equal": lambda x, y: tirx.NE(x, y),
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= y,
}


def _quantize(node: Node, x: Any) -> Any:
    """As XNNPACK does, by the scale's reciprocal in float32."""
    zero, limits = node.attributes["zero_point"], np.iinfo(node.tensor.dtype)
    low, high = (tirx.const(float(each - zero), "float32") for each in (limits.min, limits.max))
    reciprocal = float(np.float32(1) / np.float32(node.attributes["scale"]))
    value = x.astype("float32") * tirx.const(reciprocal, "float32")
    return to_byte(value, low, high, tirx.const(zero, "int32"), node.tensor.dtype)


def _dequantize(node: Node, x: Any) -> Any:
    centred = x.astype("int32") - tirx.const(node.attributes["zero_point"], "int32")
    return centred.astype("float32") * tirx.const(node.attributes["scale"], "float32")


_WITH_ATTRIBUTES: Final[Mapping[str, Callable[[Node, Any], Any]]] = {
    # In this order NaN stays NaN, as in `compute.epilogue`.
    "clip": lambda node, x: tirx.min(
        _const(node.attributes["high"], x), tirx.max(_const(node.attributes["low"], x), x)
    ),
    "leaky_relu": lambda node, x: tirx.Select(
        x > _const(0, x), x, x * _const(node.attributes["alpha"], x)
    ),
    "elu": lambda node, x: tirx.Select(
        x > _const(0, x), x, _const(node.attributes["alpha"], x) * (tirx.exp(x) - _const(1, x))
    ),
    "quantize": _quantize,
    "dequantize": _dequantize,
    "cast": lambda node, x: _cast(x, node.tensor.dtype),
}

POINTWISE: Final = frozenset({*_UNARY, *_BINARY, *_WITH_ATTRIBUTES, "select"})


def expression(node: Node, operands: list[Any]) -> Any:
    """Return one element of a node's value from those of its inputs, in the node's dtype."""
    if node.op == "select":
        condition, left, right = operands
        value = tirx.Select(condition, left, right)
    elif node.op in _WITH_ATTRIBUTES:
        value = _WITH_ATTRIBUTES[node.op](node, *operands)
    elif node.op in _UNARY:
        value = _UNARY[node.op](*operands)
    else:
        value = _BINARY[node.op](*operands)
    return _cast(value, node.tensor.dtype)


def _cast(value: Any, dtype: str) -> Any:
    if dtype_of(value) == dtype:
        return value
    if dtype == "bool":
        return tirx.NE(value, _const(0, value))
    return value.astype(dtype)
