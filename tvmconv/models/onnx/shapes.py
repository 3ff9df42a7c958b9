"""Operators of .onnx files that move elements and change shapes, and those that compute shapes."""

from __future__ import annotations

from math import prod
from typing import Final

import numpy as np

from tvmconv.models.channels_first import moving
from tvmconv.models.channels_first.steps import Value
from tvmconv.models.onnx.operation import Operation, Read

_LONGEST: Final = 1 << 20  # of a Range


def reshape(operation: Operation) -> Value:
    """To a constant shape: one extent may be -1, and 0 is the input's unless ``allowzero``."""
    old, shape = operation.shape(), operation.numbers(1)
    if not operation.get("allowzero", 0):
        shape = [old[axis] if extent == 0 else extent for axis, extent in enumerate(shape)]
    if shape.count(-1) == 1:
        known = prod(extent for extent in shape if extent != -1)
        shape[shape.index(-1)] = prod(old) // max(known, 1)
    return moving.reshape(operation.steps, operation.input(), shape)


def flatten(operation: Operation) -> Value:
    """Two axes: what is in front of one, and the rest."""
    shape = operation.shape()
    axis = operation.get("axis", 1)
    axis = axis if axis == len(shape) else operation.steps.axis(axis, len(shape))
    return moving.reshape(
        operation.steps, operation.input(), (prod(shape[:axis]), prod(shape[axis:]))
    )


def squeeze(operation: Operation) -> Value:
    """Axes are an attribute before opset 13, and an input since."""
    return moving.squeeze(operation.steps, operation.input(), operation.moved("axes", 1) or ())


def unsqueeze(operation: Operation) -> Value:
    """Axes of the result, as above."""
    axes = operation.moved("axes", 1)
    return moving.unsqueeze(operation.steps, operation.input(), axes or ())


def transpose(operation: Operation) -> Value:
    """Nothing moves until an operator needs it."""
    rank = len(operation.shape())
    return moving.transpose(operation.input(), operation.integers("perm", range(rank)[::-1]))


def concat(operation: Operation) -> Value:
    """Of any number of values."""
    return moving.concat(operation.steps, operation.present, operation.get("axis", 0))


def split(operation: Operation) -> list[Value]:
    """In parts of given sizes, or equal ones of which the last may be smaller."""
    steps, shape = operation.steps, operation.shape()
    axis = steps.axis(operation.get("axis", 0), len(shape))
    sizes = operation.moved("split", 1)
    if sizes is None:
        count = operation.get("num_outputs", operation.outputs)
        if not 1 <= count <= operation.outputs:
            raise steps.error(f"it makes {count} parts", "Export the model again.")
        size = -(-shape[axis] // count)
        sizes = [max(min(size, shape[axis] - index * size), 0) for index in range(count)]
    return moving.split(steps, operation.input(), axis, sizes)


def slice_(operation: Operation) -> Value:
    """As Python slices; bounds are attributes before opset 10, and inputs since."""
    steps, shape = operation.steps, operation.shape()
    starts, ends = operation.moved("starts", 1) or [], operation.moved("ends", 2) or []
    axes = operation.moved("axes", 3)
    axes = list(range(len(starts))) if axes is None else axes
    strides = operation.numbers(4) if operation.has(4) else [1] * len(starts)
    ranges = [range(extent) for extent in shape]
    for start, end, axis, stride in zip(starts, ends, axes, strides, strict=True):
        place = steps.axis(axis, len(shape))
        ranges[place] = range(*slice(start, end, stride).indices(shape[place]))
    return moving.cut(steps, operation.input(), ranges)


def pad(operation: Operation) -> Value:
    """With a constant, the mirrored image, or its edge."""
    steps, shape = operation.steps, operation.shape()
    mode = operation.only("mode", ("constant", "reflect", "edge"), "constant")
    flat = operation.moved("pads", 1) or []
    value = operation.scalar(2, operation.get("value", 0.0))
    axes = operation.numbers(3) if operation.has(3) else list(range(len(shape)))
    pads = [(0, 0)] * len(shape)
    if len(flat) != 2 * len(axes):
        raise steps.error(f"its pads are {flat} for the axes {axes}", "Export the model again.")
    for index, axis in enumerate(axes):
        pads[steps.axis(axis, len(shape))] = flat[index], flat[index + len(axes)]
    return moving.pad(steps, operation.input(), pads, mode, value)


def gather(operation: Operation) -> Value:
    """Along one axis."""
    axis = operation.steps.axis(operation.get("axis", 0), len(operation.shape()))
    return moving.gather(operation.steps, operation.input(), operation.input(1), axis)


def expand(operation: Operation) -> Value:
    """Broadcast against a constant shape."""
    return moving.expand(operation.steps, operation.input(), operation.numbers(1))


def tile(operation: Operation) -> Value:
    """Repeated along axes: a concatenation for each."""
    value, times = operation.input(), operation.numbers(1)
    for axis, count in enumerate(times):
        if not 1 <= count <= 1024:
            raise operation.steps.error(f"it repeats {times} times", "Up to 1024 are supported.")
        value = moving.concat(operation.steps, [value] * count, axis)
    return value


def shape(operation: Operation) -> Value:
    """Constant, since shapes are fixed; of a part of the axes since opset 15."""
    extents = operation.shape()
    start, end = operation.get("start", 0), operation.get("end", len(extents))
    return operation.steps.constant(np.asarray(extents[start:end], np.int64))


def size(operation: Operation) -> Value:
    """Number of elements."""
    return operation.steps.constant(np.asarray(prod(operation.shape()), np.int64))


def constant_of_shape(operation: Operation) -> Value:
    """One number everywhere, zero by default."""
    value = np.asarray(operation.attributes.get("value", np.zeros(1, np.float32)))
    if value.size != 1:
        raise operation.steps.error(f"its value has the shape {value.shape}", "Export again.")
    number = operation.steps.constant(value.reshape(()))
    return moving.expand(operation.steps, number, operation.numbers(0))


def range_(operation: Operation) -> Value:
    """Of constants."""
    start, limit, delta = (operation.constant(index).ravel()[0] for index in range(3))
    count = (float(limit) - float(start)) / float(delta)
    if not count <= _LONGEST:
        raise operation.steps.error(f"it has {count} elements", f"Up to {_LONGEST} can be read.")
    return operation.steps.constant(np.arange(start, limit, delta))


SHAPES: Final[dict[str, Read]] = {
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Pad": pad,
    "Gather": gather,
    "Expand": expand,
    "Tile": tile,
    "Shape": shape,
    "Size": size,
    "ConstantOfShape": constant_of_shape,
    "Range": range_,
}
