"""ATen operators that move elements and change shapes."""

from __future__ import annotations

from math import prod
from typing import Final

from tvmconv.models.channels_first import moving
from tvmconv.models.channels_first.steps import Value
from tvmconv.models.pytorch.call import Call, Read


def reshape(call: Call) -> Value:
    """To a shape, one of whose extents may be -1."""
    return moving.reshape(
        call.steps,
        call.first(),
        _resolved(call.numbers("size" if call.get("size") is not None else "shape"), call.shape()),
    )


def _resolved(shape: list[int], old: tuple[int, ...]) -> list[int]:
    if shape.count(-1) == 1:
        known = prod(extent for extent in shape if extent != -1)
        shape[shape.index(-1)] = prod(old) // max(known, 1)
    return shape


def flatten(call: Call) -> Value:
    """Axes from one to another become one."""
    shape, first, last = call.shape(), call.axis("start_dim"), call.axis("end_dim")
    merged = (*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :])
    return moving.reshape(call.steps, call.first(), merged)


def unflatten(call: Call) -> Value:
    """An axis becomes several."""
    shape, axis = call.shape(), call.axis()
    parts = _resolved(call.numbers("sizes"), (shape[axis],))
    return moving.reshape(call.steps, call.first(), (*shape[:axis], *parts, *shape[axis + 1 :]))


def squeeze(call: Call) -> Value:
    """Without axes of one element; others that are named stay."""
    gone = [axis for axis in call.axes() if call.shape()[axis] == 1]
    return moving.squeeze(call.steps, call.first(), gone) if gone else call.first()


def unsqueeze(call: Call) -> Value:
    """With one more axis."""
    return moving.unsqueeze(call.steps, call.first(), [call.axis(more=1)])


def permute(call: Call) -> Value:
    """Nothing moves until an operator needs it."""
    return moving.transpose(call.first(), call.axes("dims"))


def transpose(call: Call) -> Value:
    """Of two axes, or the last two."""
    order = list(range(len(call.shape())))
    one, two = (max(len(order) - 2, 0), len(order) - 1)
    if call.get("dim0") is not None:
        one, two = call.axis("dim0"), call.axis("dim1")
    order[one], order[two] = order[two], order[one]
    return moving.transpose(call.first(), order)


def cat(call: Call) -> Value:
    """Of tensors along an axis."""
    return moving.concat(call.steps, call.arguments["tensors"], call.get("dim"))


def stack(call: Call) -> Value:
    """Of tensors along a new axis."""
    values = call.arguments["tensors"]
    rank = len(call.steps.shape(values[0])) + 1
    axis = call.steps.axis(call.get("dim"), rank)
    parts = [moving.unsqueeze(call.steps, value, [axis]) for value in values]
    return moving.concat(call.steps, parts, axis)


def chunk(call: Call) -> list[Value]:
    """In so many equal parts, of which the last may be smaller or missing."""
    axis = call.axis()
    return _parts(call, axis, -(-call.shape()[axis] // call.get("chunks")))


def split(call: Call) -> list[Value]:
    """In parts of one size, or of given ones."""
    axis, size = call.axis(), call.get("split_size")
    if isinstance(size, int):
        return _parts(call, axis, size)
    sizes = call.numbers("split_sizes" if size is None else "split_size")
    return moving.split(call.steps, call.first(), axis, sizes)


def _parts(call: Call, axis: int, size: int) -> list[Value]:
    extent = call.shape()[axis]
    sizes = [min(size, extent - first) for first in range(0, extent, size)]
    return moving.split(call.steps, call.first(), axis, sizes)


def unbind(call: Call) -> list[Value]:
    """Each index of an axis, which goes."""
    axis = call.axis()
    parts = _parts(call, axis, 1)
    return [moving.squeeze(call.steps, part, [axis]) for part in parts]


def slice_(call: Call) -> Value:
    """Of one axis."""
    axis = call.axis()
    bounds = slice(call.get("start"), call.get("end"), call.get("step"))
    part = range(*bounds.indices(call.shape()[axis]))
    return moving.cut_axis(call.steps, call.first(), axis, part)


def select(call: Call) -> Value:
    """One index of an axis, which goes."""
    axis = call.axis()
    index = call.steps.axis(call.get("index"), call.shape()[axis])
    part = moving.cut_axis(call.steps, call.first(), axis, range(index, index + 1))
    return moving.squeeze(call.steps, part, [axis])


def expand(call: Call) -> Value:
    """To a shape in which -1 keeps an extent."""
    size = call.numbers("size")
    old = (1,) * (len(size) - len(call.shape())) + call.shape()
    wide = [before if extent == -1 else extent for extent, before in zip(size, old, strict=True)]
    return moving.expand(call.steps, call.first(), wide)


def roll(call: Call) -> Value:
    """Elements that leave an axis at its end come back in front."""
    value = call.first()
    for axis, shift in zip(call.numbers("dims"), call.numbers("shifts"), strict=True):
        axis = call.steps.axis(axis, len(call.shape()))
        extent = call.shape()[axis]
        first = -shift % max(extent, 1)
        parts = moving.split(call.steps, value, axis, [first, extent - first])
        value = moving.concat(call.steps, parts[::-1], axis) if first else value
    return value


def pad(call: Call) -> Value:
    """Pairs from the last axis on."""
    flat, rank = call.numbers("pad"), len(call.shape())
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}[
        call.only("mode", ("constant", "reflect", "replicate"))
    ]
    pairs = list(zip(flat[::2], flat[1::2], strict=True))[::-1]
    pads = [(0, 0)] * (rank - len(pairs)) + pairs
    return moving.pad(call.steps, call.first(), pads, mode, float(call.get("value") or 0))


SHAPES: Final[dict[str, Read]] = {
    "view": reshape,
    "reshape": reshape,
    "_unsafe_view": reshape,
    "flatten": flatten,
    "unflatten": unflatten,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "permute": permute,
    "transpose": transpose,
    "t": transpose,
    "mT": transpose,
    "cat": cat,
    "concat": cat,
    "stack": stack,
    "chunk": chunk,
    "split": split,
    "split_with_sizes": split,
    "unbind": unbind,
    "slice": slice_,
    "select": select,
    "expand": expand,
    "roll": roll,
    "pad": pad,
    "constant_pad_nd": pad,
}
