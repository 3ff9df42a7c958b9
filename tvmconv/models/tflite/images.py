"""Operators of .tflite files that work on images: convolutions, pools, resizing, blocks of pixels."""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np

from tvmconv.models.graph import ABSENT
from tvmconv.models.tflite.operation import Operation, Read, same_or_valid

# TfLiteTransposeConvParams of MediaPipe's custom operator: padding, stride_width, stride_height; there may
# be more behind. Its padding 1 is SAME and 2 VALID, other than in the schema.
_TRANSPOSE_CONV_PARAMS: Final = "<iii"


def conv2d(operation: Operation) -> str:
    """Filters OHWI; fewer input channels than the data are groups."""
    options = operation.options("Conv2DOptions")
    filters = operation.constant(1).transpose(1, 2, 3, 0)
    return _convolution(operation, "conv2d", options, np.ascontiguousarray(filters))


def depthwise_conv2d(operation: Operation) -> str:
    """Filters [1, height, width, channels * multiplier]."""
    options = operation.options("DepthwiseConv2DOptions")
    _, height, width, channels = operation.constant(1).shape
    depth = operation.image()[3]
    filters = operation.constant(1).reshape(height, width, depth, channels // max(depth, 1))
    return _convolution(operation, "depthwise_conv2d", options, filters)


def _convolution(operation: Operation, op: str, options: Any, filters: Any) -> str:
    strides = options.StrideH(), options.StrideW()
    dilations = options.DilationHFactor(), options.DilationWFactor()
    activation, rest = operation.fused(options.FusedActivationFunction())
    made = operation.node(
        op,
        operation.input(0),
        operation.add_constant(filters, f"{operation.inputs[1]}/{op}"),
        *_bias(operation, 2),
        strides=strides,
        pads=same_or_valid(operation, options.Padding(), filters.shape[:2], strides, dilations),
        dilations=dilations,
        activation=activation,
    )
    return operation.activate(made, rest)


def _bias(operation: Operation, index: int) -> tuple[str, ...]:
    return (operation.input(index),) if operation.has(index) else (ABSENT,)


def transpose_conv(operation: Operation) -> str:
    """Output shape, filters OHWI, data, and a bias that may be missing."""
    options = operation.options("TransposeConvOptions")
    shape = operation.numbers(0)
    if len(shape) != 4:
        raise operation.error(f"its output shape is {shape}, not NHWC", "Convert it again.")
    filters = operation.constant(1)
    strides = options.StrideH(), options.StrideW()
    size, pads = (shape[1], shape[2]), [0, 0, 0, 0]
    if min(strides) < 1:
        raise operation.error(f"its strides are {strides}", "Convert the model again.")
    if options.Padding() == 0:  # the pads of the convolution whose gradient this is
        for axis in (0, 1):
            window, stride = filters.shape[1 + axis], strides[axis]
            count = -(-size[axis] // stride)
            total = max((count - 1) * stride + window - size[axis], 0)
            pads[2 * axis : 2 * axis + 2] = total // 2, total - total // 2
    activation, rest = operation.fused(options.FusedActivationFunction())
    return operation.activate(
        _transposed(operation, operation.input(2), 3, strides, pads, size, activation), rest
    )


def transpose_conv_bias(operation: Operation) -> str:
    """MediaPipe's Convolution2DTransposeBias: data, filters OHWI, bias; its padding follows the input."""
    padding, stride_width, stride_height = struct.unpack_from(
        _TRANSPOSE_CONV_PARAMS, operation.file.custom_options
    )
    filters, strides = operation.constant(1), (stride_height, stride_width)
    if min(strides) < 1:
        raise operation.error(f"its strides are {strides}", "Convert the model again.")
    size, pads = [], []
    for extent, window, stride in zip(
        operation.image()[1:3], filters.shape[1:3], strides, strict=True
    ):
        total = max(window - (extent - 1) % stride - 1, 0) if padding == 1 else 0
        pads += [total // 2, total - total // 2]
        size.append(stride * (extent - 1) + window - total)
    return _transposed(
        operation, operation.input(0), 2, strides, pads, (size[0], size[1]), activation=None
    )


def _transposed(
    operation: Operation,
    data: str,
    bias: int,
    strides: tuple[int, int],
    pads: list[int],
    size: tuple[int, int],
    activation: str | None,
) -> str:
    filters = np.ascontiguousarray(operation.constant(1).transpose(1, 2, 0, 3))
    return operation.node(
        "conv2d_transpose",
        data,
        operation.add_constant(filters, f"{operation.inputs[1]}/transposed"),
        *_bias(operation, bias),
        strides=strides,
        pads=tuple(pads),
        size=size,
        activation=activation,
    )


def pool(op: str, **more: Any) -> Read:
    """Max or average; padded pixels do not count in an average."""

    def read(operation: Operation) -> str:
        options = operation.options("Pool2DOptions")
        window = options.FilterHeight(), options.FilterWidth()
        strides = options.StrideH(), options.StrideW()
        pads = same_or_valid(operation, options.Padding(), window, strides)
        made = operation.node(
            op, operation.input(0), window=window, strides=strides, pads=pads, **more
        )
        return operation.activate(made, options.FusedActivationFunction())

    return read


def resize_bilinear(operation: Operation) -> str:
    """Along each axis two pixels, at coordinates that one of two flags may change."""
    options = operation.options("ResizeBilinearOptions")
    return _resize(operation, options, "bilinear", "floor")


def resize_nearest(operation: Operation) -> str:
    """Rounds down, which with pixels' centres at halves is rounding of their coordinates."""
    options = operation.options("ResizeNearestNeighborOptions")
    plain = not options.AlignCorners() and not options.HalfPixelCenters()
    return _resize(operation, options, "nearest", "floor" if plain else "round")


def _resize(operation: Operation, options: Any, method: str, rounding: str) -> str:
    height, width = operation.numbers(1)
    coordinates = "half_pixel" if options.HalfPixelCenters() else "asymmetric"
    if options.AlignCorners():
        coordinates = "align_corners"
    return operation.node(
        "resize",
        operation.input(0),
        size=(height, width),
        method=method,
        coordinates=coordinates,
        rounding=rounding,
    )


def blocks(op: str, options: str) -> Read:
    """DEPTH_TO_SPACE and its reverse."""
    return lambda operation: operation.node(
        op, operation.input(0), block=operation.options(options).BlockSize()
    )


def space_to_batch(operation: Operation) -> str:
    """Around dilated convolutions of older converters: pad, then each pixel of a block is an image."""
    (bh, bw), (top, bottom, left, right) = operation.numbers(1), operation.numbers(2)
    padded = operation.node(
        "pad",
        operation.input(0),
        pads=((0, 0), (top, bottom), (left, right), (0, 0)),
        value=0.0,
        mode="constant",
    )
    batch, height, width, channels = operation.builder.tensor(padded).shape
    split = operation.node(
        "reshape", padded, shape=(batch, height // bh, bh, width // bw, bw, channels)
    )
    moved = operation.node("transpose", split, permutation=(2, 4, 0, 1, 3, 5))
    return operation.node(
        "reshape", moved, shape=(batch * bh * bw, height // bh, width // bw, channels)
    )


def batch_to_space(operation: Operation) -> str:
    """Undo `space_to_batch`, and cut off the pads."""
    (bh, bw), (top, bottom, left, right) = operation.numbers(1), operation.numbers(2)
    batch, height, width, channels = operation.image()
    batch //= bh * bw
    split = operation.node(
        "reshape", operation.input(0), shape=(bh, bw, batch, height, width, channels)
    )
    moved = operation.node("transpose", split, permutation=(2, 3, 0, 4, 1, 5))
    whole = operation.node("reshape", moved, shape=(batch, height * bh, width * bw, channels))
    return operation.node(
        "slice",
        whole,
        begin=(0, top, left, 0),
        end=(batch, height * bh - bottom, width * bw - right, channels),
        strides=(1, 1, 1, 1),
    )


IMAGES: Final[dict[str, Read]] = {
    "CONV_2D": conv2d,
    "DEPTHWISE_CONV_2D": depthwise_conv2d,
    "TRANSPOSE_CONV": transpose_conv,
    "MAX_POOL_2D": pool("max_pool2d"),
    "AVERAGE_POOL_2D": pool("average_pool2d", count_padding=False),
    "RESIZE_BILINEAR": resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest,
    "DEPTH_TO_SPACE": blocks("depth_to_space", "DepthToSpaceOptions"),
    "SPACE_TO_DEPTH": blocks("space_to_depth", "SpaceToDepthOptions"),
    "SPACE_TO_BATCH_ND": space_to_batch,
    "BATCH_TO_SPACE_ND": batch_to_space,
}
CUSTOM: Final[dict[str, Read]] = {"Convolution2DTransposeBias": transpose_conv_bias}
