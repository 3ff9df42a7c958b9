"""Networks for phones, layer by layer: depthwise separable blocks.

Squeeze-and-excitation is left out: its two layers see one pixel.
"""

from __future__ import annotations

from collections.abc import Iterable

from tvmconv.problem.layers import Network, Workload


def mobilenet_v1() -> Workload:
    """Howard et al. 2017, table 1: (output channels, stride) of the 13 separable blocks."""
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    blocks += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    net = Network()
    net.conv("stem", 3, 32, stride=2, activation="relu6")
    for i, (channels, stride) in enumerate(blocks, start=1):
        net.depthwise(f"block{i}.depthwise", 3, stride, "relu6")
        net.conv(f"block{i}.pointwise", 1, channels, activation="relu6")
    return net.workload("mobilenet_v1", "MobileNet V1 1.0, {} layers")


def _expanding(
    stages: Iterable[tuple[int, int, int, int, int]], activation: str, head: int
) -> Network:
    """A stem, stages of inverted residuals and a head.

    A stage is expansion, kernel, channels, repeats and stride of the first repeat.
    """
    net = Network()
    net.conv("stem", 3, 32, stride=2, activation=activation)
    block = 0
    for expansion, kernel, channels, repeats, stride in stages:
        for repeat in range(repeats):
            block += 1
            first_stride = stride if repeat == 0 else 1
            expanded = expansion * net.image[2]
            net.inverted_residual(
                f"block{block}", kernel, first_stride, expanded, channels, activation
            )
    net.conv("head", 1, head, activation=activation)
    return net


def mobilenet_v2() -> Workload:
    """Sandler et al. 2018, table 2."""
    stages = [
        (1, 3, 16, 1, 1),
        (6, 3, 24, 2, 2),
        (6, 3, 32, 3, 2),
        (6, 3, 64, 4, 2),
        (6, 3, 96, 3, 1),
        (6, 3, 160, 3, 2),
        (6, 3, 320, 1, 1),
    ]
    net = _expanding(stages, "relu6", 1280)
    return net.workload("mobilenet_v2", "MobileNet V2 1.0, {} layers")


def efficientnet_b0() -> Workload:
    """Tan and Le 2019, table 1."""
    stages = [
        (1, 3, 16, 1, 1),
        (6, 3, 24, 2, 2),
        (6, 5, 40, 2, 2),
        (6, 3, 80, 3, 2),
        (6, 5, 112, 3, 1),
        (6, 5, 192, 4, 2),
        (6, 3, 320, 1, 1),
    ]
    net = _expanding(stages, "silu", 1280)
    description = "EfficientNet-B0, {} layers; without squeeze-and-excitation, which is not spatial"
    return net.workload("efficientnet_b0", description)


# Howard et al. 2019: kernel, expanded channels, channels, activation, stride.
_Bneck = tuple[int, int, int, str, int]


def _mobilenet_v3(blocks: Iterable[_Bneck], head: int) -> Network:
    net = Network()
    net.conv("stem", 3, 16, stride=2, activation="hard_swish")
    for i, (kernel, expanded, channels, activation, stride) in enumerate(blocks, start=1):
        net.inverted_residual(f"block{i}", kernel, stride, expanded, channels, activation)
    net.conv("head", 1, head, activation="hard_swish")
    return net


def mobilenet_v3_small() -> Workload:
    """Howard et al. 2019, table 2."""
    blocks = [
        (3, 16, 16, "relu", 2),
        (3, 72, 24, "relu", 2),
        (3, 88, 24, "relu", 1),
        (5, 96, 40, "hard_swish", 2),
        (5, 240, 40, "hard_swish", 1),
        (5, 240, 40, "hard_swish", 1),
        (5, 120, 48, "hard_swish", 1),
        (5, 144, 48, "hard_swish", 1),
        (5, 288, 96, "hard_swish", 2),
        (5, 576, 96, "hard_swish", 1),
        (5, 576, 96, "hard_swish", 1),
    ]
    net = _mobilenet_v3(blocks, 576)
    return net.workload("mobilenet_v3_small", "MobileNet V3 small 1.0, {} layers up to the mean")


def mobilenet_v3_large() -> Workload:
    """Howard et al. 2019, table 1."""
    blocks = [
        (3, 16, 16, "relu", 1),
        (3, 64, 24, "relu", 2),
        (3, 72, 24, "relu", 1),
        (5, 72, 40, "relu", 2),
        (5, 120, 40, "relu", 1),
        (5, 120, 40, "relu", 1),
        (3, 240, 80, "hard_swish", 2),
        (3, 200, 80, "hard_swish", 1),
        (3, 184, 80, "hard_swish", 1),
        (3, 184, 80, "hard_swish", 1),
        (3, 480, 112, "hard_swish", 1),
        (3, 672, 112, "hard_swish", 1),
        (5, 672, 160, "hard_swish", 2),
        (5, 960, 160, "hard_swish", 1),
        (5, 960, 160, "hard_swish", 1),
    ]
    net = _mobilenet_v3(blocks, 960)
    return net.workload("mobilenet_v3_large", "MobileNet V3 large 1.0, {} layers up to the mean")
