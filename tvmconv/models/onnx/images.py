"""Operators of .onnx files on images: convolutions, pools, resizing, blocks of pixels."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tvmconv.models.channels_first import computing, images, moving
from tvmconv.models.channels_first.images import Pads, Pair, pair
from tvmconv.models.channels_first.steps import Value
from tvmconv.models.onnx.operation import Operation, Read
from tvmconv.problem.arguments import same_pads

_COORDINATES: Final = {
    "half_pixel": "half_pixel",
    "pytorch_half_pixel": "half_pixel",  # but for an output of one pixel
    "align_corners": "align_corners",
    "asymmetric": "asymmetric",
}
_ROUNDING: Final = {
    "round_prefer_floor": "half_down",
    "round_prefer_ceil": "round",
    "floor": "floor",
    "ceil": "ceil",
}
_METHODS: Final = {"nearest": "nearest", "linear": "bilinear", "cubic": "cubic"}


def _two(operation: Operation, name: str, default: tuple[int, ...] = (1, 1)) -> Pair:
    return pair(operation.steps, operation.integers(name, default), name)


def _pads(operation: Operation, window: Pair, strides: Pair, dilations: Pair) -> Pads:
    """Of the attribute, or as ``auto_pad`` says."""
    auto = operation.only("auto_pad", ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), "NOTSET")
    if auto == "NOTSET":
        pads = operation.integers("pads", (0, 0, 0, 0))
        if len(pads) != 4 or min(pads) < 0:
            raise operation.steps.error(f"its pads are {pads}", "Export the model again.")
        return pads[0], pads[2], pads[1], pads[3]
    found: list[int] = []
    for each in zip(operation.shape()[2:], window, strides, dilations, strict=True):
        before, after = same_pads(*each) if auto != "VALID" else (0, 0)
        found += (after, before) if auto == "SAME_LOWER" else (before, after)
    return found[0], found[1], found[2], found[3]


def conv(operation: Operation) -> Value:
    """Of images, in groups."""
    window = images.weights(operation.steps, operation.input(1))
    strides, dilations = _two(operation, "strides"), _two(operation, "dilations")
    return images.conv2d(
        operation.steps,
        operation.input(),
        operation.input(1),
        operation.optional(2),
        strides=strides,
        dilations=dilations,
        pads=_pads(operation, (window.shape[2], window.shape[3]), strides, dilations),
        groups=operation.get("group", 1),
    )


def conv_transpose(operation: Operation) -> Value:
    """With explicit pads, or those that give a wanted size."""
    window = images.weights(operation.steps, operation.input(1)).shape[2:]
    strides, dilations = _two(operation, "strides"), _two(operation, "dilations")
    more = operation.integers("output_padding", (0, 0))
    auto = operation.only("auto_pad", ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), "NOTSET")
    sizes = operation.integers("output_shape", ())
    pads = operation.integers("pads", (0, 0, 0, 0))
    pads = [pads[0], pads[2], pads[1], pads[3]]
    extents = operation.shape()[2:]
    if not sizes and auto.startswith("SAME"):
        sizes = [extent * stride for extent, stride in zip(extents, strides, strict=True)]
    if sizes:
        pads = []
        for axis in (0, 1):
            full = strides[axis] * (extents[axis] - 1) + (window[axis] - 1) * dilations[axis] + 1
            total = max(full + more[axis] - sizes[-2:][axis], 0)
            half = total // 2
            # ONNX puts an odd pixel in front unless it is SAME_UPPER.
            pads += [half, total - half] if auto == "SAME_UPPER" else [total - half, half]
    return images.conv2d_transpose(
        operation.steps,
        operation.input(),
        operation.input(1),
        operation.optional(2),
        strides=strides,
        pads=(pads[0], pads[1], pads[2], pads[3]),
        dilations=dilations,
        groups=operation.get("group", 1),
        more=(more[0], more[1]),
    )


def pool(op: str) -> Read:
    """Max or average."""

    def read(operation: Operation) -> Value:
        window = _two(operation, "kernel_shape", ())
        strides = _two(operation, "strides")
        if _two(operation, "dilations") != (1, 1):
            raise operation.steps.error("dilations of a pool are not supported", "Use 1.")
        auto = operation.attributes.get("auto_pad", "NOTSET") == "NOTSET"
        return images.pool(
            operation.steps,
            op,
            operation.input(),
            window=window,
            strides=strides,
            pads=_pads(operation, window, strides, (1, 1)),
            ceil=auto and bool(operation.get("ceil_mode", 0)),
            count_padding=bool(operation.get("count_include_pad", 0)),
        )

    return read


def global_pool(op: str) -> Read:
    """Over all pixels."""
    return lambda operation: computing.reduce(
        operation.steps, op, operation.input(), range(2, len(operation.shape())), keepdims=True
    )


def resize(operation: Operation) -> Value:
    """Of height and width, to a size or by scales."""
    steps, value, shape = operation.steps, operation.input(), operation.shape()
    old = operation.kind == "Upsample" or operation.opset < 11
    method = _METHODS[operation.only("mode", tuple(_METHODS), "nearest")]
    usual = "asymmetric" if old else "half_pixel"
    coordinates = operation.only("coordinate_transformation_mode", tuple(_COORDINATES), usual)
    for name, supported in (
        ("exclude_outside", 0), ("antialias", 0), ("keep_aspect_ratio_policy", "stretch"),
    ):  # fmt: skip
        operation.only(name, (supported,), supported)
    if method == "cubic" and abs(operation.get("cubic_coeff_a", -0.75) + 0.75) > 1e-6:
        raise steps.error("cubic_coeff_a is not -0.75", "Export the model with that.")
    size = _sizes(operation, old)
    if size[:2] != list(shape[:2]):
        raise steps.error(f"it resizes {shape} to {size}", "Only height and width can change.")
    if coordinates == "pytorch_half_pixel" and 1 in size[2:]:
        raise steps.error("pytorch_half_pixel to one pixel is not supported", "Use half_pixel.")
    rounding = operation.only(
        "nearest_mode", tuple(_ROUNDING), "floor" if old else "round_prefer_floor"
    )
    if size == list(shape):
        return value
    return images.resize(
        steps,
        value,
        size[2:],
        method=method,
        coordinates=_COORDINATES[coordinates],
        rounding=_ROUNDING[rounding] if method == "nearest" else "floor",
    )


def _sizes(operation: Operation, old: bool) -> list[int]:
    """Extents of the result, of all four axes."""
    shape = operation.shape()
    axes = operation.integers("axes", range(len(shape)))
    size = list(shape)
    if operation.has(3):
        given = operation.numbers(3)
        if len(given) != len(axes):
            raise operation.steps.error(f"its sizes are {given}", "Export the model again.")
        for axis, extent in zip(axes, given, strict=True):
            size[axis] = extent
        return size
    index = 1 if old else 2
    if operation.has(index):
        scales = [float(each) for each in np.asarray(operation.constant(index)).ravel()]
    else:
        scales = [float(each) for each in operation.attributes.get("scales", ())]
    if len(scales) != len(axes) or not all(0 < each < 1e6 for each in scales):
        raise operation.steps.error(f"its scales are {scales}", "Export the model again.")
    for axis, scale in zip(axes, scales, strict=True):
        size[axis] = int(shape[axis] * scale)
        # Coordinates follow the scale, which is that of the sizes only where these are exact.
        if abs(size[axis] - shape[axis] * scale) > 1e-3:
            raise operation.steps.error(
                f"{shape[axis]} pixels times {scale} is no whole number", "Export with sizes."
            )
    return size


def depth_to_space(operation: Operation) -> Value:
    """Channels of a block come first in the mode DCR, last in CRD."""
    steps, block = operation.steps, operation.get("blocksize", 0)
    if block < 1:
        raise steps.error(f"its blocksize is {block}", "Export the model again.")
    if operation.only("mode", ("DCR", "CRD"), "DCR") == "CRD":
        return moving.depth_to_space(steps, operation.input(), block)
    return images.blocks(steps, "depth_to_space", operation.input(), block)


def space_to_depth(operation: Operation) -> Value:
    """Blocks of pixels become channels, the block's first."""
    block = operation.get("blocksize", 0)
    if block < 1:
        raise operation.steps.error(f"its blocksize is {block}", "Export the model again.")
    return images.blocks(operation.steps, "space_to_depth", operation.input(), block)


def local_response(operation: Operation) -> Value:
    """LRN: across channels."""
    size = operation.get("size", 0)
    if not 1 <= size <= 2 * operation.shape()[1]:
        raise operation.steps.error(f"its size is {size}", "Export the model again.")
    numbers: dict[str, Any] = {
        name: operation.get(name, default)
        for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    }
    return images.local_response(operation.steps, operation.input(), size, **numbers)


IMAGES: Final[dict[str, Read]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": pool("max_pool2d"),
    "AveragePool": pool("average_pool2d"),
    "GlobalAveragePool": global_pool("mean"),
    "GlobalMaxPool": global_pool("max"),
    "Resize": resize,
    "Upsample": resize,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "LRN": local_response,
}
