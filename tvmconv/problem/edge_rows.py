"""How a row of the edge cases is written: a label, the spec and tags to filter by."""

from __future__ import annotations

from typing import Any

from tvmconv.problem.spec import ConvSpec

EdgeCase = tuple[str, ConvSpec, tuple[str, ...]]


def conv(label: str, tags: str, data: Any, window: Any, **options: Any) -> EdgeCase:
    """Return a row of `ConvSpec.conv2d`; ``tags`` are words."""
    return label, ConvSpec.conv2d(data, window, **options), ("conv2d", *tags.split())


def depthwise(label: str, tags: str, data: Any, window: Any, **options: Any) -> EdgeCase:
    """Return a row of `ConvSpec.depthwise_conv2d`; ``tags`` are words."""
    spec = ConvSpec.depthwise_conv2d(data, window, **options)
    return label, spec, ("depthwise_conv2d", *tags.split())


def pads(top: int, bottom: int, left: int, right: int) -> list[tuple[int, int]]:
    """Return explicit padding of NHWC, as TensorFlow takes it."""
    return [(0, 0), (top, bottom), (left, right), (0, 0)]
