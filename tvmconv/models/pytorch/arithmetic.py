"""ATen operators that compute element by element, along axes, or as matrices."""

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


def softmax(op: str) -> Read:
    """Along one axis."""

    def read(call: Call) -> Value:
        call.only("dtype", (None,))
        return computing.softmax(call.steps, op, call.first(), call.axis())

    return read


def reduction(op: str) -> Read:
    """Along axes, all by default."""

    def read(call: Call) -> Value:
        call.only("dtype", (None,))
        keep = bool(call.get("keepdim"))
        return computing.reduce(call.steps, op, call.first(), call.axes(), keep)

    return read


def linear(call: Call) -> Value:
    """Of a weight [out, in] and a bias."""
    steps, data, bias = call.steps, call.first(), call.optional("bias")
    weight = moving.transpose(call.value("weight"), (1, 0))
    if steps.known(weight) is not None and len(call.shape()) > 1:
        constant = bias is None or steps.known(bias) is not None
        made = computing.dense(steps, data, weight, bias if constant else None)
        return made if constant or bias is None else steps.pointwise("add", made, bias)
    made = computing.matmul(steps, data, weight)
    return made if bias is None else steps.pointwise("add", made, bias)


def matmul(call: Call) -> Value:
    """Of the first two arguments."""
    left, right = list(call.arguments.values())[:2]
    return computing.matmul(call.steps, left, right)


def addmm(call: Call) -> Value:
    """A product plus ``self``."""
    call.only("beta", (1,))
    call.only("alpha", (1,))
    made = computing.matmul(call.steps, call.value("mat1"), call.value("mat2"))
    return call.steps.pointwise("add", made, call.first())


def attention(call: Call) -> Value:
    """Softmax of the scaled products of queries and keys, times values."""
    steps, query = call.steps, call.first()
    for name, allowed in (("is_causal", False), ("enable_gqa", False)):
        call.only(name, (allowed,))
    scale = call.get("scale")
    scale = call.shape()[-1] ** -0.5 if scale is None else scale
    rank = len(call.shape())
    keys = moving.transpose(call.value("key"), (*range(rank - 2), rank - 1, rank - 2))
    scaled = steps.pointwise("multiply", query, steps.scalar(scale, query))
    scores = computing.matmul(steps, scaled, keys)
    mask = call.optional("attn_mask")
    if mask is not None:
        if steps.dtype(mask) == "bool":
            raise steps.error("its mask is bool", "Use one that is added.")
        scores = steps.pointwise("add", scores, mask)
    return computing.matmul(
        steps, computing.softmax(steps, "softmax", scores, -1), call.value("value")
    )


def batch_norm(call: Call) -> Value:
    """Of inference; without weight and bias these are ones and zeros."""
    if call.get("training"):
        raise call.steps.error("it is in training mode", "Call .eval() on the module.")
    steps, mean = call.steps, call.value("running_mean")
    scale = call.optional("weight") or steps.constant(np.ones(steps.shape(mean), np.float32))
    shift = call.optional("bias") or steps.constant(np.zeros(steps.shape(mean), np.float32))
    parameters = [scale, shift, mean, call.value("running_var")]
    return computing.batch_norm(steps, call.first(), parameters, call.get("eps"))


def group_norm(call: Call) -> Value:
    """Of groups of channels; an instance norm has as many as channels."""
    groups = call.get("num_groups")
    if groups is None:
        if not call.get("use_input_stats"):
            raise call.steps.error("it uses running statistics", "Use a batch norm.")
        groups = call.shape()[1]
    return computing.group_norm(
        call.steps,
        call.first(),
        groups,
        call.optional("weight"),
        call.optional("bias"),
        call.get("eps"),
    )


def layer_norm(call: Call) -> Value:
    """Along the last axes."""
    return computing.layer_norm(
        call.steps,
        call.first(),
        call.optional("weight"),
        call.optional("bias"),
        -len(call.numbers("normalized_shape")),
        call.get("eps"),
    )


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
    "softmax": softmax("softmax"),
    "log_softmax": softmax("log_softmax"),
    "mean": reduction("mean"),
    "sum": reduction("sum"),
    "amax": reduction("max"),
    "amin": reduction("min"),
    "linear": linear,
    "matmul": matmul,
    "bmm": matmul,
    "mm": matmul,
    "addmm": addmm,
    "scaled_dot_product_attention": attention,
    "batch_norm": batch_norm,
    "group_norm": group_norm,
    "instance_norm": group_norm,
    "layer_norm": layer_norm,
    "dropout": itself,
    "feature_dropout": itself,
    "contiguous": itself,
    "clone": itself,
    "detach": itself,
    "alias": itself,
    "lift_fresh_copy": itself,
}  # fmt: skip
