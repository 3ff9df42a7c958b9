"""Operators on images [batch, channels, height, width] of the model, which the graph has in NHWC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tvmconv.models.channels_first import moving
from tvmconv.models.channels_first.steps import NHWC, Steps, Value
from tvmconv.models.graph import Array

Pads = tuple[int, int, int, int]  # top, bottom, left, right
Pair = tuple[int, int]
_WIDEST = 256  # of a filter with zeros between its taps


def pair(steps: Steps, numbers: Sequence[int], what: str) -> Pair:
    """Two numbers above zero, or one for both axes."""
    two = (int(numbers[0]), int(numbers[-1])) if 0 < len(numbers) <= 2 else (0, 0)
    if min(two) < 1:
        raise steps.error(
            f"its {what} are {list(numbers)}, not (height, width)", "Only images are supported."
        )
    return two


def weights(steps: Steps, window: Value) -> Array:
    """A filter, which must be a constant of rank 4."""
    array = steps.known(window)
    if array is None:
        raise steps.error(
            f"its filter, {window.name}, is computed when the model runs",
            "Export the model with constant weights.",
        )
    if array.ndim != 4:
        raise steps.error(f"its filter has the shape {array.shape}", "Only images are supported.")
    return array


def conv2d(
    steps: Steps,
    value: Value,
    window: Value,
    bias: Value | None,
    *,
    strides: Pair,
    pads: Pads,
    dilations: Pair,
    groups: int,
) -> Value:
    """Filter OIHW; groups of one channel each are a depthwise convolution."""
    data, filters = steps.image(value), weights(steps, window)
    channels, depth, height, width = filters.shape
    inputs = steps.shape(value)[1]
    if groups < 1 or inputs != depth * groups or channels % groups:
        raise steps.error(
            f"{inputs} channels in {groups} groups do not fit the filter {filters.shape}",
            "Export the model again.",
        )
    if groups == inputs > 1:
        op = "depthwise_conv2d"
        filters = filters.reshape(groups, channels // groups, height, width).transpose(2, 3, 0, 1)
    else:
        op, filters = "conv2d", filters.transpose(2, 3, 1, 0)
    made = steps.node(
        op,
        data,
        steps.constant(filters).name,
        steps.bias(bias, channels),
        strides=strides,
        pads=pads,
        dilations=dilations,
        activation=None,
    )
    return Value(made, NHWC)


def conv2d_transpose(
    steps: Steps,
    value: Value,
    window: Value,
    bias: Value | None,
    *,
    strides: Pair,
    pads: Pads,
    dilations: Pair,
    groups: int,
    more: Pair,
) -> Value:
    """Filter [in, out of a group, height, width]; ``more`` pixels are added behind the last ones."""
    filters, shape = _spread(steps, weights(steps, window), dilations), steps.shape(value)
    steps.image(value)
    if groups < 1 or filters.shape[0] != shape[1] or shape[1] % groups:
        raise steps.error(
            f"{shape[1]} channels in {groups} groups do not fit the filter {filters.shape}",
            "Export the model again.",
        )
    size = tuple(
        (shape[2 + axis] - 1) * strides[axis]
        + filters.shape[2 + axis]
        + more[axis]
        - sum(pads[2 * axis : 2 * axis + 2])
        for axis in (0, 1)
    )
    if min(size) < 1:
        raise steps.error(f"it makes images of {size}", "Export the model again.")
    parts = moving.split(steps, value, 1, [shape[1] // groups] * groups)
    made = [
        Value(
            steps.node(
                "conv2d_transpose",
                steps.image(part),
                steps.constant(group.transpose(2, 3, 1, 0)).name,
                strides=strides,
                pads=pads,
                size=size,
                activation=None,
            ),
            NHWC,
        )
        for part, group in zip(parts, np.split(filters, groups), strict=True)
    ]
    whole = moving.concat(steps, made, 1)
    if bias is None:
        return whole
    channels = steps.shape(whole)[1]
    return Value(steps.node("add", whole.name, steps.bias(bias, channels)), NHWC)


def _spread(steps: Steps, filters: Array, dilations: Pair) -> Array:
    """A filter with zeros between its taps."""
    if dilations == (1, 1):
        return filters
    inner, outer, height, width = filters.shape
    size = ((height - 1) * dilations[0] + 1, (width - 1) * dilations[1] + 1)
    if max(size) > _WIDEST:
        raise steps.error(f"its dilations are {dilations}", "Export the model again.")
    wide = np.zeros((inner, outer, *size), filters.dtype)
    wide[:, :, :: dilations[0], :: dilations[1]] = filters
    return wide


def pool(
    steps: Steps,
    op: str,
    value: Value,
    *,
    window: Pair,
    strides: Pair,
    pads: Pads,
    ceil: bool,
    count_padding: bool = False,
) -> Value:
    """``max_pool2d`` or ``average_pool2d``; ``ceil``: the last window may reach beyond the pads.

    What is beyond them never counts in an average.
    """
    beyond = (0, 0)
    if ceil:
        extents = steps.shape(value)[2:]
        beyond = tuple(
            _beyond(*each)
            for each in zip(extents, window, strides, (pads[:2], pads[2:]), strict=True)
        )  # type: ignore[assignment]
    attributes: dict[str, Any] = {}
    if op == "average_pool2d":
        counted = count_padding and any(pads)
        if counted and any(beyond):
            top, bottom, left, right = pads
            pairs = [(0, 0), (0, 0), (top, bottom), (left, right)]
            value = moving.pad(steps, value, pairs, "constant", 0.0)
            pads, counted = (0, 0, 0, 0), False
        attributes["count_padding"] = counted
    wide = (pads[0], pads[1] + beyond[0], pads[2], pads[3] + beyond[1])
    made = steps.node(
        op, steps.image(value), window=window, strides=strides, pads=wide, **attributes
    )
    return Value(made, NHWC)


def _beyond(extent: int, window: int, stride: int, pads: Sequence[int]) -> int:
    """Pixels behind the pads that the last window needs, which must not begin there."""
    count = -(-(extent + sum(pads) - window) // stride) + 1
    if (count - 1) * stride >= extent + pads[0]:
        count -= 1
    return max((count - 1) * stride + window - extent - sum(pads), 0)


def resize(steps: Steps, value: Value, size: Sequence[int], **attributes: Any) -> Value:
    """To (height, width), by the attributes of the graph's ``resize``."""
    height, width = pair(steps, [int(extent) for extent in size], "sizes")
    return Value(steps.node("resize", steps.image(value), size=(height, width), **attributes), NHWC)


def blocks(steps: Steps, op: str, value: Value, block: int) -> Value:
    """``depth_to_space`` or ``space_to_depth`` whose channels are [row, column, channel]."""
    return Value(steps.node(op, steps.image(value), block=block), NHWC)


def local_response(
    steps: Steps, value: Value, size: int, alpha: float, beta: float, bias: float
) -> Value:
    """Divides x by (bias + alpha * mean of the squares of ``size`` channels around) ** beta.

    The mean is an average pool along the channels of pixels in a row.
    """
    data = steps.image(value)
    batch, height, width, channels = steps.builder.tensor(data).shape
    row = steps.node(
        "reshape", steps.node("square", data), shape=(batch, height * width, channels, 1)
    )
    before = (size - 1) // 2
    mean = steps.node(
        "average_pool2d",
        row,
        window=(1, size),
        strides=(1, 1),
        pads=(0, 0, before, size - 1 - before),
        count_padding=True,
    )
    made = Value(steps.node("reshape", mean, shape=(batch, height, width, channels)), NHWC)
    made = steps.pointwise("multiply", made, steps.scalar(alpha, made))
    made = steps.pointwise("add", made, steps.scalar(bias, made))
    made = steps.pointwise("power", made, steps.scalar(beta, made))
    return steps.pointwise("divide", Value(data, NHWC), made)
