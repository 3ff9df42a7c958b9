"""Operators of .tflite files that compute element by element, along axes, or as matrices."""

from __future__ import annotations

from math import prod
from typing import Any, Final

import numpy as np

from tvmconv.models.tflite.operation import Operation, Read


def plain(op: str, **attributes: Any) -> Read:
    """An operator that has the graph's inputs and no options."""
    return lambda operation: operation.node(
        op, *(operation.input(index) for index in range(len(operation.inputs))), **attributes
    )


def activated(op: str, options: str) -> Read:
    """An operator of two inputs with a fused activation."""
    return lambda operation: operation.activate(
        operation.node(op, operation.input(0), operation.input(1)),
        operation.options(options).FusedActivationFunction(),
    )


def add_n(operation: Operation) -> str:
    """A sum of many, as a chain."""
    total = operation.input(0)
    for index in range(1, len(operation.inputs)):
        total = operation.node("add", total, operation.input(index))
    return total


def gelu(operation: Operation) -> str:
    """By erf or, if ``approximate``, by tanh."""
    approximate = operation.options("GeluOptions").Approximate()
    return operation.node("gelu_tanh" if approximate else "gelu", operation.input(0))


def leaky_relu(operation: Operation) -> str:
    """Of one slope."""
    alpha = operation.options("LeakyReluOptions").Alpha()
    return operation.node("leaky_relu", operation.input(0), alpha=float(alpha))


def softmax(operation: Operation) -> str:
    """Along the last axis, of the data times ``beta``."""
    data, beta = operation.input(0), operation.options("SoftmaxOptions").Beta()
    if beta != 1:
        data = operation.node("multiply", data, operation.scalar(beta, data))
    return operation.node("softmax", data, axis=_last(operation))


def log_softmax(operation: Operation) -> str:
    """Along the last axis."""
    return operation.node("log_softmax", operation.input(0), axis=_last(operation))


def _last(operation: Operation) -> int:
    return operation.axis(-1, len(operation.shape()))


def reduction(op: str) -> Read:
    """Along constant axes."""

    def read(operation: Operation) -> str:
        rank = len(operation.shape())
        axes = sorted({operation.axis(axis, rank) for axis in operation.numbers(1)})
        keep = bool(operation.options("ReducerOptions").KeepDims())
        return operation.node(op, operation.input(0), axes=tuple(axes), keepdims=keep)

    return read


def arg_max(operation: Operation) -> str:
    """Along one axis, which goes."""
    (axis,) = operation.numbers(1)
    axis = operation.axis(axis, len(operation.shape()))
    return operation.node("arg_max", operation.input(0), axis=axis, dtype=operation.dtypes[0])


def arg_min(operation: Operation) -> str:
    """The largest of the negative: of equal ones the first, too."""
    (axis,) = operation.numbers(1)
    axis = operation.axis(axis, len(operation.shape()))
    negative = operation.node("negative", operation.input(0))
    return operation.node("arg_max", negative, axis=axis, dtype=operation.dtypes[0])


def l2_normalization(operation: Operation) -> str:
    """Divides by the root of the sum of squares along the last axis, which is at least 1e-6."""
    data = operation.input(0)
    squares = operation.node("square", data)
    total = operation.node("sum", squares, axes=(_last(operation),), keepdims=True)
    length = operation.node("sqrt", total)
    length = operation.node("maximum", length, operation.scalar(1e-6, length))
    code = operation.options("L2NormOptions").FusedActivationFunction()
    return operation.activate(operation.node("divide", data, length), code)


def fully_connected(operation: Operation) -> str:
    """Filters [out, in]; the data is flattened to [any, in] unless ``keep_num_dims``."""
    options = operation.options("FullyConnectedOptions")
    if options.WeightsFormat() != 0:
        raise operation.error("its weights are shuffled", "Convert the model without that.")
    data, (_, depth) = operation.input(0), operation.shape(1)
    shape = operation.shape()
    if not options.KeepNumDims() and (len(shape) != 2 or shape[1] != depth):
        data = operation.node("reshape", data, shape=(prod(shape) // max(depth, 1), depth))
    code = options.FusedActivationFunction()
    if operation.inputs[1] not in operation.builder.constants:
        made = operation.node(
            "matmul", data, operation.input(1), transpose_a=False, transpose_b=True
        )
        if operation.has(2):
            made = operation.node("add", made, operation.input(2))
        return operation.activate(made, code)
    filters = np.ascontiguousarray(operation.constant(1).T)
    bias = (operation.input(2),) if operation.has(2) else ()
    activation, rest = operation.fused(code)
    name = operation.add_constant(filters, f"{operation.inputs[1]}/dense")
    return operation.activate(
        operation.node("dense", data, name, *bias, activation=activation), rest
    )


def batch_matmul(operation: Operation) -> str:
    """Of matrices, or their transposes, in the last two axes."""
    options = operation.options("BatchMatMulOptions")
    return operation.node(
        "matmul",
        operation.input(0),
        operation.input(1),
        transpose_a=bool(options.AdjX()),
        transpose_b=bool(options.AdjY()),
    )


def select(operation: Operation) -> str:
    """The older SELECT's condition of one axis chooses whole rows."""
    condition, rank = operation.input(0), len(operation.shape(1))
    if operation.file.kind == "SELECT" and len(operation.shape()) == 1 < rank:
        shape = (*operation.shape(), *(1,) * (rank - 1))
        condition = operation.node("reshape", condition, shape=shape)
    left, right = operation.input(1), operation.input(2)
    return operation.node(
        "select", condition, left, right, dtype=operation.builder.tensor(left).dtype
    )


def cast(operation: Operation) -> str:
    """To the dtype of the output; DEQUANTIZE of float16 weights is this too."""
    return operation.node("cast", operation.input(0), dtype=operation.dtypes[0])


ARITHMETIC: Final[dict[str, Read]] = {
    "RELU": plain("relu"),
    "RELU6": plain("relu6"),
    "RELU_N1_TO_1": plain("clip", low=-1.0, high=1.0),
    "RELU_0_TO_1": plain("clip", low=0.0, high=1.0),
    "HARD_SWISH": plain("hard_swish"),
    "LOGISTIC": plain("sigmoid"),
    "TANH": plain("tanh"),
    "ELU": plain("elu", alpha=1.0),
    "PRELU": plain("prelu"),
    "LEAKY_RELU": leaky_relu,
    "GELU": gelu,
    "EXP": plain("exp"),
    "LOG": plain("log"),
    "SQRT": plain("sqrt"),
    "RSQRT": plain("rsqrt"),
    "ABS": plain("abs"),
    "NEG": plain("negative"),
    "SQUARE": plain("square"),
    "FLOOR": plain("floor"),
    "CEIL": plain("ceil"),
    "ROUND": plain("round"),
    "SIN": plain("sin"),
    "COS": plain("cos"),
    "ADD": activated("add", "AddOptions"),
    "SUB": activated("subtract", "SubOptions"),
    "MUL": activated("multiply", "MulOptions"),
    "DIV": activated("divide", "DivOptions"),
    "MAXIMUM": plain("maximum"),
    "MINIMUM": plain("minimum"),
    "POW": plain("power"),
    "SQUARED_DIFFERENCE": plain("squared_difference"),
    "FLOOR_DIV": plain("floor_divide"),
    "FLOOR_MOD": plain("floor_mod"),
    "ADD_N": add_n,
    "LOGICAL_NOT": plain("not"),
    "LOGICAL_AND": plain("and"),
    "LOGICAL_OR": plain("or"),
    "EQUAL": plain("equal"),
    "NOT_EQUAL": plain("not_equal"),
    "LESS": plain("less"),
    "LESS_EQUAL": plain("less_equal"),
    "GREATER": plain("greater"),
    "GREATER_EQUAL": plain("greater_equal"),
    "SELECT": select,
    "SELECT_V2": select,
    "MEAN": reduction("mean"),
    "SUM": reduction("sum"),
    "REDUCE_MAX": reduction("max"),
    "REDUCE_MIN": reduction("min"),
    "REDUCE_PROD": reduction("prod"),
    "ARG_MAX": arg_max,
    "ARG_MIN": arg_min,
    "SOFTMAX": softmax,
    "LOG_SOFTMAX": log_softmax,
    "L2_NORMALIZATION": l2_normalization,
    "FULLY_CONNECTED": fully_connected,
    "BATCH_MATMUL": batch_matmul,
    "CAST": cast,
    "DEQUANTIZE": cast,
    "QUANTIZE": cast,
}
