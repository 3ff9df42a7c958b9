"""Layers of other people's models that lost to a library once: shapes that no network here has."""

from __future__ import annotations

from typing import Any, Final

from tvmconv.problem.layers import Layer, Workload
from tvmconv.problem.spec import ConvSpec


def _conv(name: str, data: Any, window: Any, **options: Any) -> Layer:
    return Layer(name, ConvSpec.conv2d(data, window, **options))


def _depthwise(name: str, data: Any, window: Any, **options: Any) -> Layer:
    return Layer(name, ConvSpec.depthwise_conv2d(data, window, **options))


_LAYERS: Final = (
    # Few output channels: super-resolution, segmentation, denoising.
    _conv("3x3_64to3", (1, 64, 64, 64), (3, 3, 64, 3)),
    _conv("9x9_64to3", (1, 128, 128, 64), (9, 9, 64, 3)),
    _conv("3x3_64to21", (1, 64, 64, 64), (3, 3, 64, 21)),
    _conv("65x65_3to3", (1, 212, 310, 3), (65, 65, 3, 3)),
    # Channels that are no multiple of a vector.
    _conv("3x3_21to35", (1, 56, 56, 21), (3, 3, 21, 35)),
    _conv("1x1_75to45", (1, 19, 19, 75), (1, 1, 75, 45)),
    _conv("1x1_112to672", (1, 14, 14, 112), (1, 1, 112, 672)),
    _conv("1x1_1152to320", (1, 7, 7, 1152), (1, 1, 1152, 320)),
    _conv("3x3_48to56", (1, 37, 37, 48), (3, 3, 48, 56)),
    # Groups of few channels, and of one, which are depthwise convolutions.
    _conv("96_groups_of_1", (1, 56, 56, 96), (3, 3, 1, 96)),
    _conv("32_groups_of_4", (1, 56, 56, 128), (3, 3, 4, 128)),
    _conv("8_groups_of_7", (1, 56, 56, 56), (3, 3, 7, 56)),
    _conv("4_groups_of_15", (1, 56, 56, 60), (3, 3, 15, 60)),
    # One pixel: a fully connected layer.
    _conv("connected_25088to1024", (1, 1, 1, 25088), (1, 1, 25088, 1024)),
    # Images that no cache holds.
    _conv("3x3_112x112x128", (1, 112, 112, 128), (3, 3, 128, 128)),
    _depthwise("depthwise_256x256x144", (1, 256, 256, 144), (3, 3, 144, 1)),
    _depthwise("depthwise_512x512x96_stride2", (1, 512, 512, 96), (3, 3, 96, 1), strides=2),
    _depthwise("depthwise_1000x15x64", (1, 1000, 15, 64), (3, 3, 64, 1)),
    # Large depthwise filters.
    _depthwise("depthwise13x13", (1, 14, 14, 384), (13, 13, 384, 1)),
    _depthwise("depthwise31x31", (1, 14, 14, 512), (31, 31, 512, 1)),
    # Most taps are in the padding.
    _conv("dilation36_batch4", (4, 33, 33, 256), (3, 3, 256, 64), dilations=36),
)


def found_slow() -> Workload:
    """The layers as a workload; each is one problem, of no common network."""
    return Workload("found_slow", "layers of other people's models that were slow once", _LAYERS)
