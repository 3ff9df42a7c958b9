"""Changes of shape and order by the model's axes; none moves elements unless it must."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import numpy as np

from tvmconv.models.channels_first.steps import Steps, Value, identity, wide_order
from tvmconv.models.graph import Array
from tvmconv.models.operators import broadcast

Group = tuple[list[int], list[int]]


def transpose(value: Value, permutation: Sequence[int]) -> Value:
    """Permute axes of the model: the graph's value stays where it is."""
    if sorted(permutation) != list(range(len(value.order))):
        raise ValueError(f"{tuple(permutation)} is no permutation of {len(value.order)} axes")
    return Value(value.name, tuple(list(permutation).index(axis) for axis in value.order))


def reshape(steps: Steps, value: Value, shape: Sequence[int]) -> Value:
    """To a shape of as many elements.

    Axes that are split or merged must lie behind each other in the model's order; the others stay where they
    are. So splitting channels into groups moves nothing, and flattening an image of several pixels does.
    """
    old, shape = steps.shape(value), tuple(shape)
    if prod(old) != prod(shape) or min(shape, default=1) < 0:
        raise ValueError(f"{old} cannot be reshaped to {shape}")
    if prod(old) == 0 or not old or not shape:
        return Value(steps.node("reshape", steps.plain(value), shape=shape), identity(len(shape)))

    def position(group: Group) -> int:
        wide = [axis for axis in group[0] if old[axis] != 1] or group[0]
        return min(value.place(axis) for axis in wide)

    groups = sorted(_groups(old, shape), key=position)
    name = steps.arranged(value, tuple(axis for ins, _ in groups for axis in ins))
    order = tuple(axis for _, outs in groups for axis in outs)
    return Value(steps.node("reshape", name, shape=tuple(shape[axis] for axis in order)), order)


def _groups(old: Sequence[int], new: Sequence[int]) -> list[Group]:
    """Axes of two shapes of equally many elements in smallest groups of equally many."""
    groups: list[Group] = []
    at, to = 0, 0
    while at < len(old) and to < len(new):
        ins, outs, left, right = [at], [to], old[at], new[to]
        while left != right:
            if left < right:
                at += 1
                ins.append(at)
                left *= old[at]
            else:
                to += 1
                outs.append(to)
                right *= new[to]
        groups.append((ins, outs))
        at, to = at + 1, to + 1
    groups[-1][0].extend(range(at, len(old)))  # of one element
    groups[-1][1].extend(range(to, len(new)))
    return groups


def squeeze(steps: Steps, value: Value, axes: Sequence[int]) -> Value:
    """Without axes of one element; without any named, without all of those."""
    shape = steps.shape(value)
    gone = {steps.axis(axis, len(shape)) for axis in axes}
    gone = gone or {axis for axis, extent in enumerate(shape) if extent == 1}
    return reshape(steps, value, [extent for axis, extent in enumerate(shape) if axis not in gone])


def unsqueeze(steps: Steps, value: Value, axes: Sequence[int]) -> Value:
    """With axes of one element at those places of the result."""
    shape = list(steps.shape(value))
    rank = len(shape) + len(axes)
    for axis in sorted(steps.axis(axis, rank) for axis in axes):
        shape.insert(axis, 1)
    return reshape(steps, value, shape)


def concat(steps: Steps, values: Sequence[Value], axis: int) -> Value:
    """Along an axis; all in the order of the largest."""
    rank = len(values[0].order)
    if any(len(value.order) != rank for value in values):
        raise ValueError("values of several ranks cannot be joined")
    largest = max(values, key=lambda value: prod(steps.shape(value)))
    names = [steps.arranged(value, largest.order) for value in values]
    if len(names) == 1:
        return values[0]
    made = steps.node("concat", *names, axis=largest.place(steps.axis(axis, rank)))
    return Value(made, largest.order)


def cut(steps: Steps, value: Value, ranges: Sequence[range]) -> Value:
    """Of each axis the elements of a range, which may run backwards."""
    if all(each == range(extent) for each, extent in zip(ranges, steps.shape(value), strict=True)):
        return value
    # An empty range, and a whole one that runs backwards, end where the graph's slices may.
    parts = [ranges[axis] if len(ranges[axis]) else range(0) for axis in value.order]
    made = steps.node(
        "slice",
        value.name,
        begin=tuple(part.start for part in parts),
        end=tuple(max(part.stop, -1) for part in parts),
        strides=tuple(part.step for part in parts),
    )
    return Value(made, value.order)


def cut_axis(steps: Steps, value: Value, axis: int, part: range) -> Value:
    """Cut one axis; the others stay whole."""
    ranges = [range(extent) for extent in steps.shape(value)]
    ranges[axis] = part
    return cut(steps, value, ranges)


def split(steps: Steps, value: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
    """Cut an axis into parts of those sizes."""
    extent = steps.shape(value)[axis]
    if sum(sizes) != extent or min(sizes, default=0) < 0:
        raise steps.error(
            f"{extent} elements cannot be cut in parts of {list(sizes)}", "Convert it again."
        )
    ends = np.cumsum([0, *sizes]).tolist()
    return [cut_axis(steps, value, axis, range(*pair)) for pair in pairwise(ends)]


def pad(
    steps: Steps, data: Value, pads: Sequence[tuple[int, int]], mode: str, value: float
) -> Value:
    """Pads, a pair an axis; those below zero cut off."""
    kept = [
        range(max(-before, 0), extent - max(-after, 0))
        for (before, after), extent in zip(pads, steps.shape(data), strict=True)
    ]
    data = cut(steps, data, kept)
    wide = [(max(before, 0), max(after, 0)) for before, after in pads]
    if not any(map(any, wide)):
        return data
    pairs = tuple(wide[axis] for axis in data.order)
    made = steps.node("pad", data.name, pads=pairs, mode=mode, value=value)
    return Value(made, data.order)


def expand(steps: Steps, value: Value, shape: Sequence[int]) -> Value:
    """Broadcast against a shape."""
    whole = broadcast(steps.shape(value), tuple(shape))
    if whole == steps.shape(value):
        return value
    order = wide_order(value, len(whole))
    made = steps.node("broadcast_to", value.name, shape=tuple(whole[axis] for axis in order))
    return Value(made, order)


def gather(steps: Steps, value: Value, indices: Value, axis: int) -> Value:
    """Elements of an axis by constant indices, which may count from its end, or by computed ones."""
    array, extent = steps.known(indices), steps.shape(value)[axis]
    if array is None:
        if np.dtype(steps.dtype(indices)).kind not in "iu":
            raise steps.error(f"its indices are {steps.dtype(indices)}", "Cast them to integers.")
        name = steps.plain(indices)
        made = steps.node("gather", steps.plain(value), name, axis=axis)
        return Value(made, identity(len(steps.builder.tensor(made).shape)))
    if array.dtype.kind not in "iu" or np.any((array < -extent) | (array >= extent)):
        raise steps.error(f"its indices are not all below {extent}", "Convert it again.")
    return _taken(steps, value, np.where(array < 0, array + extent, array), axis)


def _taken(steps: Steps, value: Value, array: Array, axis: int) -> Value:
    if array.ndim == 0:
        first = int(array)
        part = cut_axis(steps, value, axis, range(first, first + 1))
        return squeeze(steps, part, [axis])
    indices = steps.constant(array.astype(np.int64)).name
    if array.ndim == 1:
        made = steps.node("gather", value.name, indices, axis=value.place(axis))
        return Value(made, value.order)
    made = steps.node("gather", steps.plain(value), indices, axis=axis)
    return Value(made, identity(len(value.order) + array.ndim - 1))


def depth_to_space(steps: Steps, value: Value, block: int) -> Value:
    """Channels [channel, row of the block, column] become pixels: PyTorch's pixel_shuffle, ONNX's CRD."""
    batch, channels, height, width = steps.shape(value)
    out = channels // max(block * block, 1)
    made = reshape(steps, value, (batch, out, block, block, height, width))
    made = transpose(made, (0, 1, 4, 2, 5, 3))
    return reshape(steps, made, (batch, out, height * block, width * block))
