"""Networks of dense convolutions, layer by layer.

Strided layers of residual networks pad like PyTorch (and TensorFlow's official models), by kernel // 2 on
each side, where SAME would put the odd pixel at the bottom right.
"""

from __future__ import annotations

from tvmconv.problem.layers import Network, Workload


def vgg16() -> Workload:
    """Simonyan and Zisserman 2014, table 1, column D."""
    net = Network()
    for i, (channels, repeats) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], 1):
        for repeat in range(1, repeats + 1):
            net.conv(f"block{i}.conv{repeat}", 3, channels, activation="relu")
        net.pool(2, 2)
    return net.workload("vgg16", "VGG-16, {} layers")


def _residual_stem() -> Network:
    net = Network()
    net.conv("stem", 7, 64, stride=2, activation="relu", pad=3)
    net.pool(3, 2, same=True)
    return net


def resnet18() -> Workload:
    """He et al. 2015, table 1: two blocks of two 3x3 layers per stage."""
    net = _residual_stem()
    for i, width in enumerate((64, 128, 256, 512), start=1):
        for block in (1, 2):
            name = f"stage{i}.block{block}"
            stride = 2 if i > 1 and block == 1 else 1
            block_input = net.image
            if stride == 2:
                net.conv(f"{name}.downsample", 1, width, stride, pad=0)
                net.image = block_input
            net.conv(f"{name}.conv1", 3, width, stride, activation="relu", pad=1)
            net.conv(f"{name}.conv2", 3, width, activation="relu", residual=True, pad=1)
    return net.workload("resnet18", "ResNet-18, {} layers")


def resnet50() -> Workload:
    """He et al. 2015, table 1: bottleneck blocks. Version 1.5: the stride is on the 3x3."""
    net = _residual_stem()
    for i, (width, repeats) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=1):
        for repeat in range(repeats):
            name = f"stage{i}.block{repeat + 1}"
            stride = 2 if i > 1 and repeat == 0 else 1
            block_input = net.image
            if repeat == 0:
                net.conv(f"{name}.downsample", 1, 4 * width, stride, pad=0)
                net.image = block_input
            net.conv(f"{name}.reduce", 1, width, activation="relu")
            net.conv(f"{name}.conv3x3", 3, width, stride, activation="relu", pad=1)
            net.conv(f"{name}.expand", 1, 4 * width, activation="relu", residual=True)
    return net.workload("resnet50", "ResNet-50 v1.5, {} layers")


def densenet121() -> Workload:
    """Huang et al. 2016, table 1: growth 32.

    Normalisation comes before a convolution: behind the first of two it is folded into that one, elsewhere
    only the bias, zero, is left.
    """
    net, growth = _residual_stem(), 32
    for i, layers in enumerate((6, 12, 24, 16), start=1):
        for layer in range(1, layers + 1):
            height, width, channels = net.image
            net.conv(f"block{i}.layer{layer}.reduce", 1, 4 * growth, activation="relu")
            net.conv(f"block{i}.layer{layer}.conv3x3", 3, growth)
            net.image = (height, width, channels + growth)
        if i < 4:
            net.conv(f"transition{i}", 1, net.image[2] // 2)
            net.pool(2, 2)
    return net.workload("densenet121", "DenseNet-121, {} layers")


def convnext_tiny() -> Workload:
    """Liu et al. 2022, table 9. GELU, which is no epilogue here, is left out."""
    net = Network()
    for i, (channels, blocks) in enumerate([(96, 3), (192, 3), (384, 9), (768, 3)], start=1):
        size = 4 if i == 1 else 2
        net.conv("stem" if i == 1 else f"downsample{i}", size, channels, stride=size, pad="VALID")
        for block in range(1, blocks + 1):
            name = f"stage{i}.block{block}"
            net.depthwise(f"{name}.depthwise", 7, 1, None)
            net.conv(f"{name}.expand", 1, 4 * channels)
            net.conv(f"{name}.project", 1, channels, residual=True)
    return net.workload("convnext_tiny", "ConvNeXt-T, {} layers")
