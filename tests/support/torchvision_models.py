"""torchvision's networks with random weights, beside a PyTorch without CUDA."""

from __future__ import annotations

import functools

import pytest

# torchvision's wheel is built for CUDA: beside another PyTorch its own operators, which no classifier uses,
# are not registered, and it cannot be imported without these two.
_MISSING = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


@functools.cache
def networks():
    """The module ``torchvision.models``."""
    torch = pytest.importorskip("torch")
    for name, schema in _MISSING.items():
        torch.library.define(name, schema)
    return pytest.importorskip("torchvision").models


def network(name: str):
    """A network whose values neither vanish nor grow: each norm has seen two images."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    made = getattr(networks(), name)(weights=None)
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        for parameter, values in made.named_parameters():
            if "layer_scale" in parameter:  # 1e-6 at first: ConvNeXt's blocks would add nothing
                values.uniform_(0.5, 1.5)
        made.train()(torch.rand(2, 3, 96, 96))
    return made.eval()
