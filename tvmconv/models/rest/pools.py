"""Maximum and average of windows, vectorised over channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import te, tirx

from tvmconv.hardware import Machine
from tvmconv.models.graph import Node, Tensor
from tvmconv.models.rest import loops
from tvmconv.problem.rules import summed_in


def pool(node: Node, tensors: Sequence[Tensor], machine: Machine) -> Any:
    """Return the function of max_pool2d and average_pool2d."""
    data = tensors[0]
    _, height, width, _ = data.shape
    (kh, kw), (sh, sw) = node.attributes["window"], node.attributes["strides"]
    top, bottom, left, right = node.attributes["pads"]
    largest = node.op == "max_pool2d"
    dtype = data.dtype if largest else summed_in(data.dtype)
    x = te.placeholder(data.shape, data.dtype, name="x")
    i, j = te.reduce_axis((0, kh), "i"), te.reduce_axis((0, kw), "j")
    outside = tvm.te.min_value(dtype) if largest else tirx.const(0, dtype)

    def read(n: Any, h: Any, w: Any, c: Any) -> Any:
        row, column = h * sh + i - top, w * sw + j - left
        value = x[n, row, column, c].astype(dtype)
        inside = [
            *([row >= 0] if top else []),
            *([row < height] if bottom else []),
            *([column >= 0] if left else []),
            *([column < width] if right else []),
        ]
        return te.if_then_else(tirx.all(*inside), value, outside) if inside else value

    reduce = te.max if largest else te.sum
    shape = node.tensor.shape
    sums = te.compute(shape, lambda *index: reduce(read(*index), axis=[i, j]), name="sums")

    def finish(n: Any, h: Any, w: Any, c: Any) -> Any:
        value = sums[n, h, w, c]
        if largest:
            return value
        rows, columns = tirx.const(kh, "int32"), tirx.const(kw, "int32")
        if not node.attributes["count_padding"]:
            rows = _inside(h * sh - top, kh, height)
            columns = _inside(w * sw - left, kw, width)
        count = tirx.max(rows * columns, tirx.const(1, "int32")).astype(dtype)
        if not dtype.startswith("float"):
            return tirx.truncdiv(value, count).astype(data.dtype)
        return (value / count).astype(data.dtype)

    schedule = loops.start([x, te.compute(shape, finish, name="out")])
    _schedule(schedule, machine, node.tensor)
    return loops.finished(schedule)


def _inside(begin: Any, window: int, extent: int) -> Any:
    """How many positions of a window from ``begin`` lie in an image."""
    end = tirx.min(begin + window, tirx.const(extent, "int32"))
    return end - tirx.max(begin, tirx.const(0, "int32"))


def _schedule(schedule: Any, machine: Machine, result: Tensor) -> None:
    main, out = schedule.get_sblock("sums"), schedule.get_sblock("out")
    lanes = machine.cpu.vector_bytes // tvm.DataType(result.dtype).itemsize
    n, h, _, c = schedule.get_loops(out)
    rows = schedule.fuse(n, h)
    if loops.is_large(result.shape, result.dtype):
        schedule.parallel(rows)
    width = max((k * lanes for k in (4, 2, 1) if result.shape[3] % (k * lanes) == 0), default=0)
    blocks, lane = schedule.split(c, [None, width or min(result.shape[3], 4 * lanes)])
    schedule.set_scope(main, 0, "local")
    schedule.compute_at(main, blocks, preserve_unit_loops=True)
    *_, cc, i, j = schedule.get_loops(main)
    schedule.reorder(i, j, cc)
    ragged = width == 0 and result.shape[3] > 4 * lanes
    if not ragged:
        schedule.vectorize(cc)
        schedule.vectorize(lane)
    init = schedule.decompose_reduction(main, i)
    if not ragged:
        schedule.vectorize(schedule.get_loops(init)[-1])
