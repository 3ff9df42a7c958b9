"""Operators of .tflite files that move elements and change shapes."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any, Final

import numpy as np

from tvmconv.models.tflite.operation import Operation, Read


def reshape(operation: Operation) -> str:
    """To a constant shape, one of whose extents may be -1."""
    options = operation.options("ReshapeOptions")
    if operation.has(1):
        shape = operation.numbers(1)
    else:
        shape = list(options.NewShapeAsNumpy()) if options.NewShapeLength() else []
    return _reshaped(operation, [int(extent) for extent in shape])


def _reshaped(operation: Operation, shape: list[int]) -> str:
    if shape.count(-1) == 1:
        known = prod(extent for extent in shape if extent != -1)
        shape[shape.index(-1)] = prod(operation.shape()) // max(known, 1)
    return operation.node("reshape", operation.input(0), shape=tuple(shape))


def squeeze(operation: Operation) -> str:
    """Without the axes that the options name, or all of one element."""
    options, shape = operation.options("SqueezeOptions"), operation.shape()
    named = options.SqueezeDimsAsNumpy() if options.SqueezeDimsLength() else ()
    gone = {operation.axis(int(axis), len(shape)) for axis in named}
    gone = gone or {axis for axis, extent in enumerate(shape) if extent == 1}
    return _reshaped(operation, [extent for axis, extent in enumerate(shape) if axis not in gone])


def expand_dims(operation: Operation) -> str:
    """With one more axis."""
    (axis,) = operation.numbers(1)
    shape = list(operation.shape())
    shape.insert(operation.axis(axis, len(shape) + 1), 1)
    return _reshaped(operation, shape)


def shape(operation: Operation) -> str:
    """Constant, since shapes are fixed."""
    return operation.add_constant(
        np.asarray(operation.shape(), operation.dtypes[0]), operation.names[0]
    )


def rank(operation: Operation) -> str:
    """Constant, since shapes are fixed."""
    return operation.add_constant(
        np.asarray(len(operation.shape()), operation.dtypes[0]), operation.names[0]
    )


def concatenation(operation: Operation) -> str:
    """Of any number of inputs along one axis."""
    options = operation.options("ConcatenationOptions")
    values = [operation.input(index) for index in range(len(operation.inputs))]
    axis = operation.axis(options.Axis(), len(operation.shape()))
    made = operation.node("concat", *values, axis=axis)
    return operation.activate(made, options.FusedActivationFunction())


def split(operation: Operation) -> list[str]:
    """The axis, then data that is cut in equal parts."""
    (axis,), extents = operation.numbers(0), operation.shape(1)
    axis, parts = operation.axis(axis, len(extents)), max(len(operation.names), 1)
    if extents[axis] % parts:
        raise operation.error(
            f"{extents[axis]} elements cannot be cut in {parts}", "Convert it again."
        )
    return _parts(operation, operation.input(1), axis, [extents[axis] // parts] * parts)


def split_v(operation: Operation) -> list[str]:
    """Data that is cut in parts of given sizes, one of which may be -1."""
    sizes, (axis,) = operation.numbers(1), operation.numbers(2)
    axis = operation.axis(axis, len(operation.shape()))
    if sizes.count(-1) == 1:
        rest = sum(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = operation.shape()[axis] - rest
    return _parts(operation, operation.input(0), axis, sizes)


def unpack(operation: Operation) -> list[str]:
    """Each index of one axis, which goes."""
    extents = operation.shape()
    axis = operation.axis(operation.options("UnpackOptions").Axis(), len(extents))
    rest = (*extents[:axis], *extents[axis + 1 :])
    if extents[axis] != len(operation.names):
        raise operation.error(
            f"it makes {len(operation.names)} values of {extents[axis]}", "Convert it again."
        )
    parts = _parts(operation, operation.input(0), axis, [1] * extents[axis])
    return [operation.node("reshape", part, shape=rest) for part in parts]


def _parts(operation: Operation, data: str, axis: int, sizes: list[int]) -> list[str]:
    extents = operation.builder.tensor(data).shape
    ends = [sum(sizes[:index]) for index in range(len(sizes) + 1)]
    return [
        operation.node(
            "slice",
            data,
            begin=tuple(first if at == axis else 0 for at in range(len(extents))),
            end=tuple(last if at == axis else extent for at, extent in enumerate(extents)),
            strides=(1,) * len(extents),
        )
        for first, last in pairwise(ends)
    ]


def pack(operation: Operation) -> str:
    """Values of one shape along a new axis."""
    values = [operation.input(index) for index in range(len(operation.inputs))]
    extents = list(operation.shape())
    axis = operation.axis(operation.options("PackOptions").Axis(), len(extents) + 1)
    extents.insert(axis, 1)
    parts = [operation.node("reshape", value, shape=tuple(extents)) for value in values]
    return operation.node("concat", *parts, axis=axis)


def slice_(operation: Operation) -> str:
    """From begins on, of given sizes; -1 is the rest."""
    extents = operation.shape()
    begins, sizes = operation.numbers(1), operation.numbers(2)
    ends = [
        extent if size == -1 else begin + size
        for extent, begin, size in zip(extents, begins, sizes, strict=True)
    ]
    return operation.node(
        "slice",
        operation.input(0),
        begin=tuple(begins),
        end=tuple(ends),
        strides=(1,) * len(extents),
    )


def strided_slice(operation: Operation) -> str:
    """As Python slices, by bits of masks: an ellipsis, new axes, and axes that go with their index."""
    options = operation.options("StridedSliceOptions")
    begins, ends, steps = (operation.numbers(index) for index in (1, 2, 3))
    extents = operation.shape()
    parts: list[slice] = []
    kept: list[int | None] = []  # an axis's number among parts, or None for a new axis
    used = sum(
        not (options.EllipsisMask() | options.NewAxisMask()) >> bit & 1
        for bit in range(len(begins))
    )
    for bit, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        if options.EllipsisMask() >> bit & 1:
            for _ in range(len(extents) - used):
                kept.append(len(parts))
                parts.append(slice(0, extents[len(parts)], 1))
            continue
        if options.NewAxisMask() >> bit & 1:
            kept.append(None)
            continue
        extent = extents[len(parts)]
        if options.ShrinkAxisMask() >> bit & 1:
            first = operation.axis(begin, extent)
            parts.append(slice(first, first + 1, 1))
            continue
        if options.Offset():
            end += begin
        wanted = slice(
            None if options.BeginMask() >> bit & 1 else begin,
            None if options.EndMask() >> bit & 1 else end,
            step,
        )
        kept.append(len(parts))
        parts.append(slice(*wanted.indices(extent)))
    for extent in extents[len(parts) :]:
        kept.append(len(parts))
        parts.append(slice(0, extent, 1))
    made = operation.node(
        "slice",
        operation.input(0),
        begin=tuple(part.start for part in parts),
        end=tuple(part.stop for part in parts),
        strides=tuple(part.step for part in parts),
    )
    sliced = operation.builder.tensor(made).shape
    final = tuple(1 if axis is None else sliced[axis] for axis in kept)
    return made if final == sliced else operation.node("reshape", made, shape=final)


def reverse(operation: Operation) -> str:
    """Along given axes."""
    extents = operation.shape()
    axes = {operation.axis(axis, len(extents)) for axis in operation.numbers(1)}
    ranges = [
        (extent - 1, -1, -1) if axis in axes and extent else (0, extent, 1)
        for axis, extent in enumerate(extents)
    ]
    begin, end, strides = zip(*ranges, strict=True)
    return operation.node("slice", operation.input(0), begin=begin, end=end, strides=strides)


def transpose(operation: Operation) -> str:
    """By a constant permutation."""
    extents = operation.shape()
    order = tuple(operation.axis(axis, len(extents)) for axis in operation.numbers(1))
    return operation.node("transpose", operation.input(0), permutation=order)


def pad(operation: Operation) -> str:
    """With zeros, or PADV2's third input."""
    value = 0.0
    if operation.has(2):
        (number,) = operation.constant(2).ravel()
        value = float(number)
    return _padded(operation, value=value, mode="constant")


def mirror_pad(operation: Operation) -> str:
    """Without the edge in the mirror, or with it, which for one pixel is the edge repeated."""
    symmetric = operation.options("MirrorPadOptions").Mode() == 1
    if symmetric and max(operation.numbers(1), default=0) > 1:
        raise operation.error(
            f"it mirrors {operation.numbers(1)} elements symmetrically, and one is supported",
            "Use the mode REFLECT.",
        )
    return _padded(operation, value=0.0, mode="edge" if symmetric else "reflect")


def _padded(operation: Operation, **attributes: Any) -> str:
    flat = operation.numbers(1)
    pads = tuple(zip(flat[::2], flat[1::2], strict=True))
    return operation.node("pad", operation.input(0), pads=pads, **attributes)


def tile(operation: Operation) -> str:
    """Repeated along axes: broadcast along new ones in front of each."""
    extents, times = operation.shape(), operation.numbers(1)
    if len(times) != len(extents):
        raise operation.error(f"it repeats {extents} by {times}", "Convert it again.")
    apart = tuple(each for extent in extents for each in (1, extent))
    wide = tuple(
        each for extent, count in zip(extents, times, strict=True) for each in (count, extent)
    )
    made = operation.node("reshape", operation.input(0), shape=apart)
    made = operation.node("broadcast_to", made, shape=wide)
    final = tuple(extent * count for extent, count in zip(extents, times, strict=True))
    return operation.node("reshape", made, shape=final)


def broadcast_to(operation: Operation) -> str:
    """To a constant shape."""
    return operation.node("broadcast_to", operation.input(0), shape=tuple(operation.numbers(1)))


def fill(operation: Operation) -> str:
    """A constant shape of one value."""
    return operation.node("broadcast_to", operation.input(1), shape=tuple(operation.numbers(0)))


def zeros_like(operation: Operation) -> str:
    """Zeros of the input's shape and dtype."""
    zero = operation.scalar(0, operation.input(0))
    return operation.node("broadcast_to", zero, shape=operation.shape())


def gather(operation: Operation) -> str:
    """Along one axis; no batches of indices."""
    options = operation.options("GatherOptions")
    if options.BatchDims():
        raise operation.error("batch_dims of a gather is not supported", "Use 0.")
    axis = operation.axis(options.Axis(), len(operation.shape()))
    if operation.inputs[1] in operation.builder.constants:
        indices, extent = operation.constant(1), operation.shape()[axis]
        if np.any((indices < 0) | (indices >= extent)):
            raise operation.error(f"its indices are not all below {extent}", "Convert it again.")
    return operation.node("gather", operation.input(0), operation.input(1), axis=axis)


def itself(operation: Operation) -> str:
    """DENSIFY: sparse constants are dense when the file has been read."""
    operation.constant(0)
    return operation.input(0)


SHAPES: Final[dict[str, Read]] = {
    "RESHAPE": reshape,
    "SQUEEZE": squeeze,
    "EXPAND_DIMS": expand_dims,
    "SHAPE": shape,
    "RANK": rank,
    "CONCATENATION": concatenation,
    "SPLIT": split,
    "SPLIT_V": split_v,
    "PACK": pack,
    "UNPACK": unpack,
    "SLICE": slice_,
    "STRIDED_SLICE": strided_slice,
    "REVERSE_V2": reverse,
    "TRANSPOSE": transpose,
    "PAD": pad,
    "PADV2": pad,
    "MIRROR_PAD": mirror_pad,
    "TILE": tile,
    "BROADCAST_TO": broadcast_to,
    "FILL": fill,
    "ZEROS_LIKE": zeros_like,
    "GATHER": gather,
    "DENSIFY": itself,
}
