"""ATen operators on images: convolutions, pools, resizing, blocks of pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tvmconv.models.channels_first import computing, images, moving
from tvmconv.models.channels_first.images import Pads, Pair
from tvmconv.models.channels_first.steps import Value
from tvmconv.models.pytorch.call import Call, Read


def conv2d(call: Call) -> Value:
    """With pads, or one of the names ``same`` and ``valid``."""
    window = images.weights(call.steps, call.value("weight")).shape[2:]
    dilations = call.pair("dilation")
    return images.conv2d(
        call.steps,
        call.first(),
        call.value("weight"),
        call.optional("bias"),
        strides=call.pair("stride"),
        pads=_pads(call, (window[0], window[1]), dilations),
        dilations=dilations,
        groups=call.get("groups"),
    )


def _pads(call: Call, window: Pair, dilations: Pair) -> Pads:
    if not isinstance(call.get("padding"), str):
        vertical, horizontal = call.pair("padding")
        return vertical, vertical, horizontal, horizontal
    if call.only("padding", ("same", "valid")) == "valid":
        return 0, 0, 0, 0
    vertical, horizontal = (
        dilation * (extent - 1) for dilation, extent in zip(dilations, window, strict=True)
    )
    return vertical // 2, -(-vertical // 2), horizontal // 2, -(-horizontal // 2)


def conv_transpose2d(call: Call) -> Value:
    """With pads that cut off the result's edge."""
    vertical, horizontal = call.pair("padding")
    return images.conv2d_transpose(
        call.steps,
        call.first(),
        call.value("weight"),
        call.optional("bias"),
        strides=call.pair("stride"),
        pads=(vertical, vertical, horizontal, horizontal),
        dilations=call.pair("dilation"),
        groups=call.get("groups"),
        more=call.pair("output_padding"),
    )


def pool(op: str) -> Read:
    """Max or average; strides are the window by default."""

    def read(call: Call) -> Value:
        window = call.pair("kernel_size")
        vertical, horizontal = call.pair("padding")
        call.only("divisor_override", (None,))
        if call.get("dilation") is not None and call.pair("dilation") != (1, 1):
            raise call.steps.error("dilations of a pool are not supported", "Use 1.")
        return images.pool(
            call.steps,
            op,
            call.first(),
            window=window,
            strides=call.pair("stride", window),
            pads=(vertical, vertical, horizontal, horizontal),
            ceil=bool(call.get("ceil_mode")),
            count_padding=bool(call.get("count_include_pad")),
        )

    return read


def adaptive_average(call: Call) -> Value:
    """To a size that divides the image's; to one pixel it is a mean."""
    size, extents = call.pair("output_size"), call.shape()[-2:]
    if size == (1, 1):
        axes = range(len(call.shape()) - 2, len(call.shape()))
        return computing.reduce(call.steps, "mean", call.first(), axes, keepdims=True)
    if min(size) < 1 or extents[0] % size[0] or extents[1] % size[1]:
        raise call.steps.error(
            f"it pools {extents} pixels to {size}, which do not divide them", "Use another size."
        )
    window = (extents[0] // size[0], extents[1] // size[1])
    return images.pool(
        call.steps,
        "average_pool2d",
        call.first(),
        window=window,
        strides=window,
        pads=(0, 0, 0, 0),
        ceil=False,
    )


def upsample(method: str, coordinates: str, rounding: str) -> Callable[[Call], Value]:
    """To a size, or by factors that give whole numbers of pixels."""

    def read(call: Call) -> Value:
        extents, factors = call.shape()[2:], call.get("scale_factors")
        if call.get("output_size") is not None:
            size = call.numbers("output_size")
        else:
            size = [int(extent * factor) for extent, factor in zip(extents, factors, strict=True)]
            exact = [extent * factor for extent, factor in zip(extents, factors, strict=True)]
            if any(abs(a - b) > 1e-6 for a, b in zip(size, exact, strict=True)):
                raise call.steps.error(
                    f"{extents} pixels times {factors} are no whole numbers", "Give a size."
                )
        return images.resize(
            call.steps,
            call.first(),
            size,
            method=method,
            coordinates="align_corners" if call.get("align_corners") else coordinates,
            rounding=rounding,
        )

    return read


def pixel_shuffle(call: Call) -> Value:
    """Channels of a block come last."""
    return moving.depth_to_space(call.steps, call.first(), call.get("upscale_factor"))


def pixel_unshuffle(call: Call) -> Value:
    """Undo `pixel_shuffle`."""
    steps, block = call.steps, call.get("downscale_factor")
    batch, channels, height, width = call.shape()
    split = (batch, channels, height // block, block, width // block, block)
    made = moving.transpose(moving.reshape(steps, call.first(), split), (0, 1, 3, 5, 2, 4))
    shape = (batch, channels * block * block, height // block, width // block)
    return moving.reshape(steps, made, shape)


def channel_shuffle(call: Call) -> Value:
    """Channels of groups become neighbours."""
    batch, channels, *pixels = call.shape()
    groups = call.get("groups")
    split = (batch, groups, channels // groups, *pixels)
    made = moving.reshape(call.steps, call.first(), split)
    made = moving.transpose(made, (0, 2, 1, *range(3, len(split))))
    return moving.reshape(call.steps, made, call.shape())


IMAGES: Final[dict[str, Read]] = {
    "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "max_pool2d": pool("max_pool2d"),
    "avg_pool2d": pool("average_pool2d"),
    "adaptive_avg_pool2d": adaptive_average,
    "upsample_nearest2d": upsample("nearest", "asymmetric", "floor"),
    "_upsample_nearest_exact2d": upsample("nearest", "half_pixel", "round"),
    "upsample_bilinear2d": upsample("bilinear", "half_pixel", "floor"),
    "upsample_bicubic2d": upsample("cubic", "half_pixel", "floor"),
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "channel_shuffle": channel_shuffle,
    "native_channel_shuffle": channel_shuffle,
}
