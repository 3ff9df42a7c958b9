"""ATen operators that compute along axes, or as matrices."""

from __future__ import annotations

from typing import Final

import numpy as np

from tvmconv.models.channels_first import computing, moving
from tvmconv.models.channels_first.steps import Value
from tvmconv.models.pytorch.call import Call, Read


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


AXES: Final[dict[str, Read]] = {
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
}
