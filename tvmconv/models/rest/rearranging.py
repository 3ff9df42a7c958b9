"""Operators that move elements and compute nothing: which element of the input an output's is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tvm import te, tirx

from tvmconv.models.graph import Node

Index = Sequence[Any]
Read = Callable[[Index], Any]  # one element of a value
Shape = tuple[int, ...]


def broadcast_index(index: Index, shape: Shape) -> list[Any]:
    """Return where an element of a broadcast result is in an operand of ``shape``."""
    own = list(index)[len(index) - len(shape) :]
    return [0 if extent == 1 else at for at, extent in zip(own, shape, strict=True)]


def _transpose(node: Node, shapes: Sequence[Shape], reads: Sequence[Read], index: Index) -> Any:
    order = node.attributes["permutation"]
    source = [index[order.index(axis)] for axis in range(len(order))]
    return reads[0](source)


def _slice(node: Node, shapes: Sequence[Shape], reads: Sequence[Read], index: Index) -> Any:
    begin, strides = node.attributes["begin"], node.attributes["strides"]
    return reads[0]([b + at * s for at, b, s in zip(index, begin, strides, strict=True)])


def _pad(node: Node, shapes: Sequence[Shape], reads: Sequence[Read], index: Index) -> Any:
    mode, pads = node.attributes["mode"], node.attributes["pads"]
    inner = [at - before if before else at for at, (before, _) in zip(index, pads, strict=True)]
    if mode == "reflect":
        return reads[0](
            [_reflected(at, n, p) for at, n, p in zip(inner, shapes[0], pads, strict=True)]
        )
    if mode == "edge":
        return reads[0]([_clamped(at, n) for at, n in zip(inner, shapes[0], strict=True)])
    inside = []
    for at, extent, (before, after) in zip(inner, shapes[0], pads, strict=True):
        inside += [at >= 0] if before else []
        inside += [at < extent] if after else []
    if not inside:
        return reads[0](inner)
    value = tirx.const(node.attributes["value"], node.tensor.dtype)
    return te.if_then_else(tirx.all(*inside), reads[0](inner), value)


def _reflected(at: Any, extent: int, pads: tuple[int, int]) -> Any:
    at = tirx.abs(at) if pads[0] else at
    return tirx.min(at, 2 * (extent - 1) - at) if pads[1] else at


def _clamped(at: Any, extent: int) -> Any:
    return tirx.max(tirx.min(at, extent - 1), 0)


def _depth_to_space(
    node: Node, shapes: Sequence[Shape], reads: Sequence[Read], index: Index
) -> Any:
    (n, y, x, c), block, channels = index, node.attributes["block"], node.tensor.shape[3]
    inner = (y % block * block + x % block) * channels + c
    return reads[0]([n, y // block, x // block, inner])


def _space_to_depth(
    node: Node, shapes: Sequence[Shape], reads: Sequence[Read], index: Index
) -> Any:
    (n, y, x, c), block, channels = index, node.attributes["block"], shapes[0][3]
    row, column = c // (block * channels), c // channels % block
    return reads[0]([n, y * block + row, x * block + column, c % channels])


def _broadcast_to(node: Node, shapes: Sequence[Shape], reads: Sequence[Read], index: Index) -> Any:
    return reads[0](broadcast_index(index, shapes[0]))


def _gather(node: Node, shapes: Sequence[Shape], reads: Sequence[Read], index: Index) -> Any:
    axis, rank = node.attributes["axis"], len(shapes[1])
    # An index of the model's user that lies outside must not read foreign memory.
    taken = _clamped(reads[1](index[axis : axis + rank]).astype("int32"), shapes[0][axis])
    return reads[0]([*index[:axis], taken, *index[axis + rank :]])


_REARRANGING: Final[Mapping[str, Callable[..., Any]]] = {
    "transpose": _transpose,
    "slice": _slice,
    "pad": _pad,
    "depth_to_space": _depth_to_space,
    "space_to_depth": _space_to_depth,
    "broadcast_to": _broadcast_to,
    "gather": _gather,
}
REARRANGING: Final = frozenset(_REARRANGING)
# Those that read no element more than once: what they read may be computed where it is read.
READ_ONCE: Final = frozenset({"transpose", "slice", "depth_to_space", "space_to_depth"})


def element(node: Node, shapes: Sequence[Shape], reads: Sequence[Read], index: Index) -> Any:
    """Return the element at ``index`` of a node's value; ``shapes`` are those of its inputs."""
    return _REARRANGING[node.op](node, shapes, reads, index)
