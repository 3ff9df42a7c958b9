"""Reductions, products and normalisations by the model's axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvmconv.models.channels_first import moving
from tvmconv.models.channels_first.steps import Steps, Value, identity


def reduce(steps: Steps, op: str, value: Value, axes: Sequence[int], keepdims: bool) -> Value:
    """One of the graph's reductions; what is left lies as it lay."""
    rank = len(value.order)
    gone = {steps.axis(axis, rank) for axis in axes}
    places = tuple(sorted(value.place(axis) for axis in gone))
    made = steps.node(op, value.name, axes=places, keepdims=keepdims)
    if keepdims:
        return Value(made, value.order)
    left = [axis for axis in range(rank) if axis not in gone]
    return Value(made, tuple(left.index(axis) for axis in value.order if axis not in gone))


def softmax(steps: Steps, op: str, value: Value, axis: int) -> Value:
    """``softmax`` or ``log_softmax`` along an axis."""
    place = value.place(steps.axis(axis, len(value.order)))
    return Value(steps.node(op, value.name, axis=place), value.order)


def clip(steps: Steps, value: Value, low: float, high: float) -> Value:
    """Between two numbers, either of which may be infinite."""
    if low == 0 and high == np.inf:
        return steps.pointwise("relu", value)
    if np.isfinite([low, high]).all():
        return steps.pointwise("clip", value, low=low, high=high)
    if np.isfinite(low):
        return steps.pointwise("maximum", value, steps.scalar(low, value))
    if np.isfinite(high):
        return steps.pointwise("minimum", value, steps.scalar(high, value))
    return value


def hard_sigmoid(steps: Steps, value: Value, alpha: float, beta: float) -> Value:
    """Clip alpha * x + beta to (0, 1); the usual one is the graph's own."""
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return steps.pointwise("hard_sigmoid", value)
    line = steps.pointwise("multiply", value, steps.scalar(alpha, value))
    line = steps.pointwise("add", line, steps.scalar(beta, line))
    return steps.pointwise("clip", line, low=0.0, high=1.0)


def affine(
    steps: Steps, value: Value, scale: Value | None, shift: Value | None, axis: int
) -> Value:
    """Times a vector and plus a vector, both along one axis."""
    for op, vector in (("multiply", scale), ("add", shift)):
        if vector is not None:
            wide = (-1, *(1,) * (len(value.order) - 1 - axis))
            extent = steps.shape(vector)[0]
            along = moving.reshape(steps, vector, (extent, *wide[1:]))
            value = steps.pointwise(op, value, along)
    return value


def batch_norm(steps: Steps, value: Value, parameters: Sequence[Value], epsilon: float) -> Value:
    """A multiplication and an addition of channels: scale, shift, mean, variance are constants."""
    arrays = [steps.known(each) for each in parameters]
    if any(array is None for array in arrays):
        raise steps.error("its parameters are computed", "Export the model for inference.")
    channels = (steps.shape(value)[1],)
    if any(array.dtype.kind != "f" for array in arrays if array is not None):
        raise steps.error("its parameters are integers", "Export again.")
    if any(steps.shape(each) != channels for each in parameters):
        shapes = [steps.shape(each) for each in parameters]
        raise steps.error(f"its parameters are {shapes}, not {channels} each", "Export again.")
    scale, shift, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    with np.errstate(all="ignore"):  # a negative variance makes NaN, as in the model
        factor = scale / np.sqrt(variance + epsilon)
    dtype = steps.dtype(value)
    summand = steps.constant((shift - mean * factor).astype(dtype))
    return affine(steps, value, steps.constant(factor.astype(dtype)), summand, axis=1)


def normalized(steps: Steps, value: Value, axes: Sequence[int], epsilon: float) -> Value:
    """Less the mean along axes, divided by the standard deviation."""
    mean = reduce(steps, "mean", value, axes, keepdims=True)
    centred = steps.pointwise("subtract", value, mean)
    square = steps.pointwise("square", centred)
    variance = reduce(steps, "mean", square, axes, keepdims=True)
    variance = steps.pointwise("add", variance, steps.scalar(epsilon, variance))
    return steps.pointwise("multiply", centred, steps.pointwise("rsqrt", variance))


def layer_norm(
    steps: Steps,
    value: Value,
    scale: Value | None,
    shift: Value | None,
    axis: int,
    epsilon: float,
) -> Value:
    """Along all axes from one on; scale and shift have those axes."""
    rank = len(value.order)
    made = normalized(steps, value, range(steps.axis(axis, rank), rank), epsilon)
    made = made if scale is None else steps.pointwise("multiply", made, scale)
    return made if shift is None else steps.pointwise("add", made, shift)


def group_norm(
    steps: Steps,
    value: Value,
    groups: int,
    scale: Value | None,
    shift: Value | None,
    epsilon: float,
) -> Value:
    """Of groups of channels over all pixels; as many groups as channels are an instance norm."""
    shape = steps.shape(value)
    if groups < 1 or shape[1] % groups:
        raise ValueError(f"{shape[1]} channels are no multiple of {groups} groups")
    split = (shape[0], groups, shape[1] // groups, *shape[2:])
    made = moving.reshape(steps, value, split)
    made = normalized(steps, made, range(2, len(split)), epsilon)
    return affine(steps, moving.reshape(steps, made, shape), scale, shift, axis=1)


def dense(steps: Steps, value: Value, window: Value, bias: Value | None = None) -> Value:
    """Product of rows and a constant matrix [in, out], plus a vector."""
    last = len(value.order) - 1
    if value.order[-1] != last:
        value = Value(steps.plain(value), identity(last + 1))
    vector = steps.bias(bias, steps.shape(window)[1])
    made = steps.node("dense", value.name, steps.plain(window), vector, activation=None)
    return Value(made, value.order)


def matmul(steps: Steps, left: Value, right: Value) -> Value:
    """NumPy's product of matrices and vectors."""
    vectors = len(left.order) == 1, len(right.order) == 1
    if vectors[0]:
        left = moving.reshape(steps, left, (1, *steps.shape(left)))
    if vectors[1]:
        right = moving.reshape(steps, right, (*steps.shape(right), 1))
    matrix = steps.known(right)
    if matrix is not None and matrix.ndim == 2 and matrix.dtype.kind == "f":
        made = dense(steps, left, right)
    else:
        (a, turn_a), (b, turn_b) = _matrix(steps, left), _matrix(steps, right)
        name = steps.node("matmul", a, b, transpose_a=turn_a, transpose_b=turn_b)
        made = Value(name, identity(len(steps.builder.tensor(name).shape)))
    shape = list(steps.shape(made))
    if vectors[1]:
        shape.pop()
    if vectors[0]:
        shape.pop(-1 if vectors[1] else -2)
    return moving.reshape(steps, made, shape) if any(vectors) else made


def _matrix(steps: Steps, value: Value) -> tuple[str, bool]:
    """Name of a value whose last two axes may lie the other way round, and whether they do."""
    rank = len(value.order)
    turned = (*range(rank - 2), rank - 1, rank - 2)
    return (value.name, True) if value.order == turned else (steps.plain(value), False)
