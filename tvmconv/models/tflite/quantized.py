"""Operators of .tflite files on quantised tensors: bytes that stand for scale * (byte - zero point).

Convolutions and matrices stay in bytes (`problem.quantized`); what only moves bytes moves them; the rest is
computed in float32 between "dequantize" and "quantize", which fuse with it. Constants of models whose data
are floats (dynamic range quantisation) become floats here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np

from tvmconv.models.graph import Array
from tvmconv.models.tflite.file import FileQuantization
from tvmconv.models.tflite.operation import Operation, Read, same_or_valid
from tvmconv.problem.rules import BYTE_DTYPES
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime.quantization import Quantization

# Operators that move bytes, or choose among them, whatever they stand for.
_MOVING: Final = frozenset({
    "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "CONCATENATION", "SPLIT", "SPLIT_V", "PACK", "UNPACK", "SLICE",
    "STRIDED_SLICE", "REVERSE_V2", "TRANSPOSE", "MIRROR_PAD", "TILE", "BROADCAST_TO", "GATHER",
    "MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "BATCH_TO_SPACE_ND",
    "SHAPE", "RANK", "DENSIFY",
})  # fmt: skip
# Operators that are computed in float32.
_IN_FLOATS: Final = frozenset({
    "ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "PAD", "PADV2",
    "AVERAGE_POOL_2D", "RESIZE_BILINEAR", "SPACE_TO_BATCH_ND", "SOFTMAX", "LOG_SOFTMAX", "LOGISTIC",
    "HARD_SWISH", "TANH", "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "ELU", "LEAKY_RELU", "PRELU",
    "GELU", "EXP", "LOG", "SQRT", "RSQRT", "ABS", "NEG", "SQUARE", "SUM", "REDUCE_MAX", "REDUCE_MIN",
    "L2_NORMALIZATION", "BATCH_MATMUL", "EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER",
    "GREATER_EQUAL", "SELECT", "SELECT_V2", "ARG_MAX", "ARG_MIN",
})  # fmt: skip
_ACTIVATIONS: Final = {0: None, 1: "relu", 3: "relu6"}


def is_quantized(operation: Operation) -> bool:
    """Whether any of its tensors holds bytes, or biases, that stand for numbers."""
    return any(each is not None for each in (*operation.quantizations, *operation.makes))


def read_quantized(operation: Operation, read: Read) -> str | Sequence[str]:
    """Read an operator that `is_quantized`; ``read`` is its function of the tables for floats.

    Raises ModelError, which names the operator, for one that is not computed on quantised tensors.
    """
    kind = operation.file.kind
    if kind in ("DEQUANTIZE", "QUANTIZE"):
        value = _as_float(operation, 0)
        return _as_bytes(operation, value, 0)
    if _dtype(operation, 0) not in BYTE_DTYPES and kind in (*_CONVOLUTIONS, "FULLY_CONNECTED"):
        return _in_floats(operation, read)
    if kind in _CONVOLUTIONS:
        return _CONVOLUTIONS[kind](operation)
    if kind == "FULLY_CONNECTED":
        return _fully_connected(operation)
    if kind == "MEAN":
        return _mean(operation)
    if kind in _MOVING and not _is_activated(operation):
        return _moving(operation, read)
    if kind in _IN_FLOATS or kind in _MOVING:
        return _in_floats(operation, read)
    raise operation.error(
        "the operator is not supported on quantised tensors",
        "Convert the model without quantisation.",
    )


def dequantized(array: Array, by: FileQuantization) -> Array:
    """Return the numbers that a constant stands for, in float32."""
    extents = [1] * array.ndim
    if by.scales.size > 1:
        extents[by.axis] = by.scales.size
    scales, points = by.scales.reshape(extents), by.zero_points.reshape(extents)
    return ((array.astype(np.int64) - points).astype(np.float32) * scales).astype(np.float32)


def _dtype(operation: Operation, index: int) -> str:
    return operation.builder.tensor(operation.input(index)).dtype


def _as_float(operation: Operation, index: int) -> str:
    """The numbers that an input stands for; itself where it stands for itself."""
    name, by = operation.inputs[index], operation.quantizations[index]
    if by is None:
        return name
    constant = operation.builder.constants.get(name)
    if constant is not None:
        return operation.add_constant(dequantized(constant, by), f"{name}/numbers")
    scale, zero_point = _of_tensor(operation, by)
    return operation.node("dequantize", name, scale=scale, zero_point=zero_point)


def _as_bytes(operation: Operation, value: str, index: int) -> str:
    """The bytes of an output that stand for a value; itself where it is a float."""
    by = operation.makes[index]
    if by is None:
        return value
    scale, zero_point = _of_tensor(operation, by)
    dtype = operation.dtypes[index]
    return operation.node("quantize", value, scale=scale, zero_point=zero_point, dtype=dtype)


def _of_tensor(operation: Operation, by: FileQuantization) -> tuple[float, int]:
    if by.scales.size != 1:
        raise operation.error(
            f"it computes with a tensor of {by.scales.size} scales, and only constants may have several",
            "Convert it again.",
        )
    return float(by.scales[0]), int(by.zero_points[0])


def _in_floats(operation: Operation, read: Read) -> str | list[str]:
    inputs = tuple(
        _as_float(operation, index) if operation.has(index) else name
        for index, name in enumerate(operation.inputs)
    )
    dtypes = tuple(
        "float32" if by is not None else dtype
        for by, dtype in zip(operation.makes, operation.dtypes, strict=True)
    )
    nothing = (None,) * len(inputs)
    plain = dataclasses.replace(operation, inputs=inputs, dtypes=dtypes, quantizations=nothing)
    made = read(plain)
    values = [made] if isinstance(made, str) else list(made)
    return [_as_bytes(operation, value, index) for index, value in enumerate(values)]


def _moving(operation: Operation, read: Read) -> str | list[str]:
    """Let bytes move; those that stand for other numbers than the result's are turned first."""
    target = operation.makes[0]
    inputs = list(operation.inputs)
    for index, by in enumerate(operation.quantizations):
        if by is not None and target is not None and by != target:
            inputs[index] = _as_bytes(operation, _as_float(operation, index), 0)
    made = read(dataclasses.replace(operation, inputs=tuple(inputs)))
    return made if isinstance(made, str) else list(made)


def _is_activated(operation: Operation) -> bool:
    options = {"MAX_POOL_2D": "Pool2DOptions", "CONCATENATION": "ConcatenationOptions"}
    name = options.get(operation.file.kind)
    return name is not None and operation.options(name).FusedActivationFunction() != 0


def _mean(operation: Operation) -> str:
    """A sum of bytes in int32, whose scale is the data's by their number."""
    by = operation.quantizations[0]
    if by is None or operation.makes[0] is None:
        raise operation.error("its data or its result has no scale", "Convert it again.")
    shape = operation.shape()
    axes = sorted({operation.axis(axis, len(shape)) for axis in operation.numbers(1)})
    keep = bool(operation.options("ReducerOptions").KeepDims())
    total = operation.node(
        "sum", operation.input(0), dtype="int32", axes=tuple(axes), keepdims=keep
    )
    count = max(prod(shape[axis] for axis in axes), 1)
    scale, zero_point = _of_tensor(operation, by)
    value = operation.node("dequantize", total, scale=scale / count, zero_point=zero_point * count)
    return _as_bytes(operation, value, 0)


def _conv2d(operation: Operation) -> str:
    """Filters OHWI."""
    filters = np.ascontiguousarray(operation.constant(1).transpose(1, 2, 3, 0))
    return _image_convolution(operation, "conv2d", operation.options("Conv2DOptions"), filters)


def _depthwise(operation: Operation) -> str:
    """Filters [1, height, width, channels * multiplier]."""
    _, height, width, channels = operation.constant(1).shape
    depth = operation.image()[3]
    filters = operation.constant(1).reshape(height, width, depth, channels // max(depth, 1))
    options = operation.options("DepthwiseConv2DOptions")
    return _image_convolution(operation, "depthwise_conv2d", options, filters)


def _image_convolution(operation: Operation, op: str, options: Any, filters: Array) -> str:
    strides = options.StrideH(), options.StrideW()
    dilations = options.DilationHFactor(), options.DilationWFactor()
    pads = same_or_valid(operation, options.Padding(), filters.shape[:2], strides, dilations)
    attributes = {"strides": strides, "pads": pads, "dilations": dilations}
    data, code = operation.input(0), options.FusedActivationFunction()
    return _convolution(operation, op, data, filters, code, attributes)


def _fully_connected(operation: Operation) -> str:
    """Filters [out, in], as a 1x1 convolution of so many pixels."""
    options = operation.options("FullyConnectedOptions")
    if options.WeightsFormat() != 0:
        raise operation.error("its weights are shuffled", "Convert the model without that.")
    channels, depth = operation.constant(1).shape
    filters = np.ascontiguousarray(operation.constant(1).T).reshape(1, 1, depth, channels)
    shape = operation.shape()
    rows = prod(shape) // max(depth, 1)
    pixels = operation.node("reshape", operation.input(0), shape=(1, 1, rows, depth))
    attributes = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    code = options.FusedActivationFunction()
    made = _convolution(operation, "conv2d", pixels, filters, code, attributes)
    last = (*shape[:-1], channels) if options.KeepNumDims() else (rows, channels)
    return operation.node("reshape", made, shape=last)


def _convolution(
    operation: Operation, op: str, data: str, filters: Array, code: int, attributes: dict[str, Any]
) -> str:
    by, weights, made = *operation.quantizations[:2], operation.makes[0]
    dtype, out = _dtype(operation, 0), operation.dtypes[0]
    if by is None or weights is None or made is None:
        raise operation.error("data, filter or result has no scale", "Convert it again.")
    if filters.dtype != np.int8 or np.any(weights.zero_points) or out not in BYTE_DTYPES:
        raise operation.error(
            f"its filter is {filters.dtype} with zero points {np.unique(weights.zero_points)[:3]} and its "
            f"result {out}; supported are filters of int8 around 0 and results of 8 bits",
            "Convert the model again, with int8 weights.",
        )
    if code not in _ACTIVATIONS:
        raise operation.error(f"the fused activation {code} is not supported", "Split it off.")
    (input_scale, input_point), (scale, point) = (
        _of_tensor(operation, each) for each in (by, made)
    )
    layer = Quantization(
        input_scale, input_point, weights.scales, scale, point, activation=_ACTIVATIONS[code]
    )
    bias = operation.constant(2) if operation.has(2) else None
    if bias is not None and bias.dtype != np.int32:
        raise operation.error(f"its bias is {bias.dtype}, not int32", "Convert it again.")
    make = ConvSpec.conv2d if op == "conv2d" else ConvSpec.depthwise_conv2d
    shape = operation.builder.tensor(data).shape
    spec = make(shape, filters.shape, dtype=dtype, bias=True, quantized=out)
    constants = layer.constants(spec, filters, bias)
    names = [
        operation.add_constant(array, f"{operation.names[0]}/{name}")
        for name, array in constants.items()
    ]
    return operation.node(f"quantized_{op}", data, *names, dtype=out, **attributes)


_CONVOLUTIONS: Final[dict[str, Read]] = {"CONV_2D": _conv2d, "DEPTHWISE_CONV_2D": _depthwise}
