"""ATen operators that compute element by element."""

from __future__ import annotations

from math import inf
from typing import Any, Final

import numpy as np

from tvmconv.models.channels_first import computing, moving
from tvmconv.models.channels_first.steps import Value
from tvmconv.models.pytorch.call import Call, Read


def unary(op: str, **attributes: Any) -> Read:
    """Of the first argument alone."""
    return lambda call: call.steps.pointwise(op, call.first(), **attributes)


def binary(op: str) -> Read:
    """Of ``self`` and ``other``, of which one may be a number; ``alpha`` multiplies ``other``."""

    def read(call: Call) -> Value:
        left, right = _operands(call)
        if call.get("alpha") not in (None, 1):
            right = call.steps.pointwise("multiply", right, call.value("alpha", right))
        return call.steps.pointwise(op, left, right)

    return read


def _operands(call: Call) -> tuple[Value, Value]:
    known = next((each for each in call.arguments.values() if isinstance(each, Value)), None)
    return call.value("self", known), call.value("other", known)


def logical(op: str) -> Read:
    """Of bools; of integers it would be bit by bit."""

    def read(call: Call) -> Value:
        left, right = _operands(call)
        if call.steps.dtype(left) != "bool":
            raise call.steps.error("it combines bits of integers", "Compare them first.")
        return call.steps.pointwise(op, left, right)

    return read


def reversed_subtract(call: Call) -> Value:
    """``other`` less ``self``."""
    left, right = _operands(call)
    if call.get("alpha") not in (None, 1):
        raise call.steps.error(f"alpha={call.get('alpha')} is not supported", "Use 1.")
    return call.steps.pointwise("subtract", right, left)


def divide(call: Call) -> Value:
    """Of floats, without rounding."""
    call.only("rounding_mode", (None,))
    left, right = _operands(call)
    if np.dtype(call.steps.dtype(left)).kind != "f":
        raise call.steps.error("it divides integers", "Cast them to floats.")
    return call.steps.pointwise("divide", left, right)


def power(call: Call) -> Value:
    """Squares and roots are operators of their own."""
    base = call.first()
    special = {2: "square", 0.5: "sqrt", -0.5: "rsqrt"}
    exponent = call.get("exponent")
    if isinstance(exponent, (int, float)) and exponent in special:
        return call.steps.pointwise(special[exponent], base)
    return call.steps.pointwise("power", base, call.value("exponent", base))


def reciprocal(call: Call) -> Value:
    """One divided by each element."""
    return call.steps.pointwise("divide", call.steps.scalar(1, call.first()), call.first())


def clamp(low: str, high: str) -> Read:
    """Between two numbers whose arguments have these names, either of which may be absent."""

    def read(call: Call) -> Value:
        bounds = [call.get(name) for name in (low, high)]
        if any(isinstance(bound, Value) for bound in bounds):
            raise call.steps.error("its bounds are tensors", "Use minimum and maximum.")
        least = -inf if bounds[0] is None else float(bounds[0])
        most = inf if bounds[1] is None else float(bounds[1])
        return computing.clip(call.steps, call.first(), least, most)

    return read


def gelu(call: Call) -> Value:
    """By erf or by tanh."""
    approximate = call.only("approximate", ("none", "tanh")) == "tanh"
    return call.steps.pointwise("gelu_tanh" if approximate else "gelu", call.first())


def elu(call: Call) -> Value:
    """Of one scale."""
    call.only("scale", (1,))
    call.only("input_scale", (1,))
    return call.steps.pointwise("elu", call.first(), alpha=float(call.get("alpha")))


def leaky_relu(call: Call) -> Value:
    """Of one slope."""
    return call.steps.pointwise("leaky_relu", call.first(), alpha=float(call.get("negative_slope")))


def prelu(call: Call) -> Value:
    """Slopes, one or one a channel."""
    data, slopes = call.first(), call.value("weight")
    shape = (-1, *(1,) * (len(call.shape()) - 2))
    count = call.steps.shape(slopes)[0]
    along = moving.reshape(call.steps, slopes, (count, *shape[1:]))
    return call.steps.pointwise("prelu", data, along)


def softplus(call: Call) -> Value:
    """Of beta 1; beyond the threshold it is the same within float32."""
    call.only("beta", (1,))
    return call.steps.pointwise("softplus", call.first())


def where(call: Call) -> Value:
    """Choose elements by a condition."""
    given = (call.get("self"), call.get("other"))
    known = next((each for each in given if isinstance(each, Value)), None)
    left, right = call.value("self", known), call.value("other", known)
    dtype = call.steps.dtype(left)
    return call.steps.pointwise("select", call.value("condition"), left, right, dtype=dtype)


def cast(call: Call) -> Value:
    """To another dtype; a device or a memory format changes nothing."""
    dtype = call.get("dtype")
    if dtype is None:
        return call.first()
    return call.steps.pointwise("cast", call.first(), dtype=str(dtype).removeprefix("torch."))


def itself(call: Call) -> Value:
    """What does nothing when a model infers."""
    if call.get("train"):
        raise call.steps.error("it is in training mode", "Call .eval() on the module.")
    return call.first()


ARITHMETIC: Final[dict[str, Read]] = {
    **{
        name: unary(op)
        for name, op in {
            "relu": "relu", "relu6": "relu6", "hardswish": "hard_swish", "hardsigmoid": "hard_sigmoid",
            "silu": "silu", "sigmoid": "sigmoid", "tanh": "tanh", "exp": "exp", "log": "log", "sqrt": "sqrt",
            "rsqrt": "rsqrt", "abs": "abs", "neg": "negative", "square": "square", "erf": "erf",
            "mish": "mish", "floor": "floor", "ceil": "ceil", "round": "round", "sin": "sin", "cos": "cos",
        }.items()
    },
    **{
        name: binary(op)
        for name, op in {
            "add": "add", "sub": "subtract", "mul": "multiply", "maximum": "maximum", "minimum": "minimum",
            "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater",
            "ge": "greater_equal",
        }.items()
    },
    **dict.fromkeys(("logical_and", "bitwise_and", "__and__"), logical("and")),
    **dict.fromkeys(("logical_or", "bitwise_or", "__or__"), logical("or")),
    "rsub": reversed_subtract,
    "div": divide,
    "pow": power,
    "reciprocal": reciprocal,
    "clamp": clamp("min", "max"),
    "clamp_min": clamp("min", ""),
    "clamp_max": clamp("", "max"),
    "hardtanh": clamp("min_val", "max_val"),
    "gelu": gelu,
    "elu": elu,
    "leaky_relu": leaky_relu,
    "prelu": prelu,
    "softplus": softplus,
    "where": where,
    "to": cast,
    "_to_copy": cast,
    "dropout": itself,
    "feature_dropout": itself,
    "contiguous": itself,
    "clone": itself,
    "detach": itself,
    "alias": itself,
    "lift_fresh_copy": itself,
}  # fmt: skip
