"""Elements in another order, where that is all a function does: of axes, or of blocks of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import tvm
from tvm import te

from tvmconv.hardware import Machine
from tvmconv.models.graph import Node, Tensor
from tvmconv.models.rest import loops

Shape = tuple[int, ...]
# Of the result's last axis, where that is too short for vectors: LLVM makes vectors of the loop around.
_UNROLLED = 16
TURNING = ("transpose", "depth_to_space", "space_to_depth")


def axes(node: Node, shape: Shape) -> tuple[Shape, Shape]:
    """Return a node's data as an array of few axes, and the order in which the result has them."""
    if node.op == "transpose":
        return _merged(shape, node.attributes["permutation"])
    block = node.attributes["block"]
    batch, height, width, channels = shape
    if node.op == "depth_to_space":
        split = (batch, height, width, block, block, channels // block**2)
    else:
        split = (batch, height // block, block, width // block, block, channels)
    return _merged(split, (0, 1, 3, 2, 4, 5))


def _merged(shape: Shape, order: Sequence[int]) -> tuple[Shape, Shape]:
    """Drop axes of one element, and make one of those that follow each other in both."""
    runs: list[list[int]] = []
    for axis in (each for each in order if shape[each] > 1):
        between = range(runs[-1][-1] + 1, axis) if runs else range(0)
        if runs and axis > runs[-1][-1] and all(shape[each] == 1 for each in between):
            runs[-1].append(axis)
        else:
            runs.append([axis])
    sources = sorted(runs)
    extents = tuple(prod(shape[axis] for axis in run) for run in sources)
    return extents or (1,), tuple(sources.index(run) for run in runs) or (0,)


def turn(node: Node, tensors: Sequence[Tensor], machine: Machine) -> Any:
    """Return the function of transpose, depth_to_space and space_to_depth."""
    shape, order = axes(node, tensors[0].shape)
    dtype = node.tensor.dtype
    x = te.placeholder(shape, dtype, name="x")
    result = tuple(shape[axis] for axis in order)

    def read(*index: Any) -> Any:
        return x[tuple(index[order.index(axis)] for axis in range(len(shape)))]

    schedule = loops.start([x, te.compute(result, read, name="out")])
    lanes = machine.cpu.vector_bytes // tvm.DataType(dtype).itemsize
    if order[-1] == len(shape) - 1 and 2 * result[-1] >= lanes:
        loops.apply_rule(schedule, machine, result, dtype)
        return loops.finished(schedule)
    *outer, last = schedule.get_loops(schedule.get_sblock("out"))
    if result[-1] <= _UNROLLED:
        schedule.unroll(last)
        outer = outer[:-1]
    elif order[-1] != len(shape) - 1:
        outer = _tiled(schedule, [*outer, last], order.index(len(shape) - 1), result)
    if outer and loops.is_large(result, dtype):
        schedule.parallel(schedule.fuse(*outer) if len(outer) > 1 else outer[0])
    return loops.finished(schedule)


def _tiled(schedule: Any, axes: list[Any], source_last: int, result: Shape) -> list[Any]:
    """Turn square tiles, which use all of the cache lines that they meet; returns the loops around them."""
    down, inner_down = schedule.split(axes[source_last], [None, _side(result[source_last])])
    across, inner_across = schedule.split(axes[-1], [None, _side(result[-1])])
    around = [*axes[:source_last], *axes[source_last + 1 : -1], down, across]
    schedule.reorder(*around, inner_down, inner_across)
    schedule.vectorize(inner_across)
    return around[:-1]


def _side(extent: int) -> int:
    return max(each for each in range(1, _UNROLLED + 1) if extent % each == 0)
