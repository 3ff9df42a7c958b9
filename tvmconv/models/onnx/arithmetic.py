"""Operators of .onnx files that compute element by element, along axes, or as matrices."""

from __future__ import annotations

from functools import reduce as chain
from math import inf
from typing import Any, Final

import numpy as np

from tvmconv.models.channels_first import computing, moving
from tvmconv.models.channels_first.steps import Value
from tvmconv.models.onnx.file import dtype_name
from tvmconv.models.onnx.operation import Operation, Read


def plain(op: str) -> Read:
    """An operator that has the graph's inputs and no attributes."""
    return lambda operation: operation.steps.pointwise(op, *operation.present)


def many(op: str) -> Read:
    """An operator of any number of inputs, as a chain."""
    return lambda operation: chain(
        lambda left, right: operation.steps.pointwise(op, left, right), operation.present
    )


def mean_of_many(operation: Operation) -> Value:
    """Elementwise, of all inputs."""
    total = many("add")(operation)
    assert isinstance(total, Value)  # noqa: S101 - for the type checker
    count = operation.steps.scalar(len(operation.present), total)
    return operation.steps.pointwise("divide", total, count)


def clip(operation: Operation) -> Value:
    """Bounds are attributes before opset 11, and inputs since."""
    low = operation.scalar(1, operation.get("min", -inf))
    high = operation.scalar(2, operation.get("max", inf))
    return computing.clip(operation.steps, operation.input(), low, high)


def hard_sigmoid(operation: Operation) -> Value:
    """Clip alpha * x + beta to (0, 1)."""
    return computing.hard_sigmoid(
        operation.steps,
        operation.input(),
        operation.get("alpha", 0.2),
        operation.get("beta", 0.5),
    )


def sloped(op: str, alpha: float) -> Read:
    """LeakyRelu and Elu."""
    return lambda operation: operation.steps.pointwise(
        op, operation.input(), alpha=operation.get("alpha", alpha)
    )


def gelu(operation: Operation) -> Value:
    """By erf or by tanh."""
    approximate = operation.only("approximate", ("none", "tanh"), "none") == "tanh"
    return operation.steps.pointwise("gelu_tanh" if approximate else "gelu", operation.input())


def power(operation: Operation) -> Value:
    """The result has the dtype of the base; squares and roots are operators of their own."""
    steps, base = operation.steps, operation.input()
    exponent = steps.known(operation.input(1))
    if exponent is not None and exponent.size == 1 and len(exponent.shape) <= len(base.order):
        special = {2.0: "square", 0.5: "sqrt"}.get(float(exponent.ravel()[0]))
        if special is not None:
            return steps.pointwise(special, base)
    other = operation.input(1)
    if steps.dtype(other) != steps.dtype(base):
        other = steps.pointwise("cast", other, dtype=steps.dtype(base))
    return steps.pointwise("power", base, other)


def reciprocal(operation: Operation) -> Value:
    """One divided by each element."""
    one = operation.steps.scalar(1, operation.input())
    return operation.steps.pointwise("divide", one, operation.input())


def modulo(operation: Operation) -> Value:
    """With the sign of the divisor."""
    operation.only("fmod", (0,), 0)
    return operation.steps.pointwise("floor_mod", operation.input(), operation.input(1))


def where(operation: Operation) -> Value:
    """Choose elements by a condition."""
    dtype = operation.steps.dtype(operation.input(1))
    return operation.steps.pointwise("select", *operation.present, dtype=dtype)


def cast(operation: Operation) -> Value:
    """To a dtype of the attribute."""
    return operation.steps.pointwise(
        "cast", operation.input(), dtype=dtype_name(operation.get("to", 0))
    )


def softmax(op: str) -> Read:
    """Along one axis; before opset 13 along all from one on, in which the others count as one."""

    def read(operation: Operation) -> Value:
        steps, value, rank = operation.steps, operation.input(), len(operation.shape())
        if operation.opset >= 13:
            return computing.softmax(steps, op, value, operation.get("axis", -1))
        axis, shape = steps.axis(operation.get("axis", 1), rank), operation.shape()
        if max(shape[axis + 1 :], default=1) == 1:
            return computing.softmax(steps, op, value, axis)
        flat = moving.reshape(
            steps, value, (*shape[:axis], int(np.prod(shape[axis:], dtype=np.int64)))
        )
        return moving.reshape(steps, computing.softmax(steps, op, flat, axis), shape)

    return read


def reduction(op: str, before: str | None = None, after: str | None = None) -> Read:
    """Along axes, all by default; ``before`` and ``after`` are elementwise."""

    def read(operation: Operation) -> Value:
        steps, value = operation.steps, operation.input()
        axes = operation.moved("axes", 1)
        if not axes and operation.get("noop_with_empty_axes", 0):
            return value
        axes = axes or list(range(len(operation.shape())))
        value = value if before is None else steps.pointwise(before, value)
        keep = bool(operation.get("keepdims", 1))
        value = computing.reduce(steps, op, value, axes, keep)
        return value if after is None else steps.pointwise(after, value)

    return read


def gemm(operation: Operation) -> Value:
    """Of matrices: alpha * A @ B + beta * C, of A and B or their transposes."""
    steps, alpha, beta = operation.steps, operation.get("alpha", 1.0), operation.get("beta", 1.0)
    left, right = operation.input(), operation.input(1)
    left = moving.transpose(left, (1, 0)) if operation.get("transA", 0) else left
    right = moving.transpose(right, (1, 0)) if operation.get("transB", 0) else right
    if alpha != 1:
        right = steps.pointwise("multiply", right, steps.scalar(alpha, right))
    made = computing.matmul(steps, left, right)
    bias = operation.optional(2)
    if bias is None or beta == 0:
        return made
    if beta != 1:
        bias = steps.pointwise("multiply", bias, steps.scalar(beta, bias))
    return steps.pointwise("add", made, bias)


def matmul(operation: Operation) -> Value:
    """NumPy's."""
    return computing.matmul(operation.steps, operation.input(), operation.input(1))


def batch_norm(operation: Operation) -> Value:
    """Of inference."""
    operation.only("training_mode", (0,), 0)
    operation.only("spatial", (1,), 1)  # before opset 9
    parameters = [operation.input(index) for index in range(1, 5)]
    epsilon = operation.get("epsilon", 1e-5)
    return computing.batch_norm(operation.steps, operation.input(), parameters, epsilon)


def instance_norm(operation: Operation) -> Value:
    """Of each channel of each image."""
    return computing.group_norm(
        operation.steps,
        operation.input(),
        operation.shape()[1],
        operation.input(1),
        operation.input(2),
        operation.get("epsilon", 1e-5),
    )


def group_norm(operation: Operation) -> Value:
    """Scale and shift are of groups before opset 21, and of channels since."""
    steps, groups = operation.steps, operation.get("num_groups", 0)
    scale, shift = operation.input(1), operation.input(2)
    if operation.opset < 21:
        size = operation.shape()[1] // max(groups, 1)
        scale, shift = (
            moving.reshape(
                steps,
                moving.expand(steps, moving.unsqueeze(steps, each, [1]), (groups, size)),
                (groups * size,),
            )
            for each in (scale, shift)
        )
    epsilon = operation.get("epsilon", 1e-5)
    return computing.group_norm(steps, operation.input(), groups, scale, shift, epsilon)


def layer_norm(operation: Operation) -> Value:
    """Along all axes from one on."""
    return computing.layer_norm(
        operation.steps,
        operation.input(),
        operation.input(1),
        operation.optional(2),
        operation.get("axis", -1),
        operation.get("epsilon", 1e-5),
    )


def itself(operation: Operation) -> Value:
    """What does nothing when a model infers."""
    return operation.input()


def constant(operation: Operation) -> Value:
    """Of an attribute whose name says its type."""
    dtypes: dict[str, Any] = {
        "value": None,
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    for name, dtype in dtypes.items():
        if name in operation.attributes:
            return operation.steps.constant(np.asarray(operation.attributes[name], dtype))
    raise operation.steps.error(
        f"a constant of {', '.join(operation.attributes) or 'nothing'} is not supported",
        "Use numbers.",
    )


ARITHMETIC: Final[dict[str, Read]] = {
    **{
        name: plain(op)
        for name, op in {
            "Relu": "relu", "HardSwish": "hard_swish", "Sigmoid": "sigmoid", "Tanh": "tanh", "Exp": "exp",
            "Log": "log", "Sqrt": "sqrt", "Abs": "abs", "Neg": "negative", "Erf": "erf", "Mish": "mish",
            "Softplus": "softplus", "Floor": "floor", "Ceil": "ceil", "Round": "round", "Sin": "sin",
            "Cos": "cos", "Not": "not", "Add": "add", "Sub": "subtract", "Mul": "multiply",
            "Div": "divide", "PRelu": "prelu", "And": "and", "Or": "or", "Equal": "equal", "Less": "less",
            "LessOrEqual": "less_equal", "Greater": "greater", "GreaterOrEqual": "greater_equal",
        }.items()
    },
    "Sum": many("add"),
    "Max": many("maximum"),
    "Min": many("minimum"),
    "Mean": mean_of_many,
    "Clip": clip,
    "HardSigmoid": hard_sigmoid,
    "LeakyRelu": sloped("leaky_relu", 0.01),
    "Elu": sloped("elu", 1.0),
    "Gelu": gelu,
    "Pow": power,
    "Reciprocal": reciprocal,
    "Mod": modulo,
    "Where": where,
    "Cast": cast,
    "Softmax": softmax("softmax"),
    "LogSoftmax": softmax("log_softmax"),
    "ReduceMean": reduction("mean"),
    "ReduceSum": reduction("sum"),
    "ReduceMax": reduction("max"),
    "ReduceMin": reduction("min"),
    "ReduceProd": reduction("prod"),
    "ReduceSumSquare": reduction("sum", before="square"),
    "ReduceL1": reduction("sum", before="abs"),
    "ReduceL2": reduction("sum", before="square", after="sqrt"),
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "LayerNormalization": layer_norm,
    "Identity": itself,
    "Dropout": itself,
    "Constant": constant,
}  # fmt: skip
