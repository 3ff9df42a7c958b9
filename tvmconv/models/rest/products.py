"""Products of two matrices that a model computes itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import te

from tvmconv.hardware import Machine
from tvmconv.models.graph import Node, Tensor
from tvmconv.models.rest import loops
from tvmconv.models.rest.rearranging import broadcast_index
from tvmconv.problem.rules import summed_in


def matmul(node: Node, tensors: Sequence[Tensor], machine: Machine) -> Any:
    """Return the function of matmul, broadcast over leading axes."""
    left, right = tensors
    depth = left.shape[-2 if node.attributes["transpose_a"] else -1]
    dtype = summed_in(left.dtype)
    a = te.placeholder(left.shape, left.dtype, name="left")
    b = te.placeholder(right.shape, right.dtype, name="right")
    k = te.reduce_axis((0, depth), "k")

    def element(*index: Any) -> Any:
        *batch, i, j = index
        own = [i, k] if not node.attributes["transpose_a"] else [k, i]
        other = [k, j] if not node.attributes["transpose_b"] else [j, k]
        x = a[(*broadcast_index(batch, left.shape[:-2]), *own)].astype(dtype)
        y = b[(*broadcast_index(batch, right.shape[:-2]), *other)].astype(dtype)
        return te.sum(x * y, axis=k)

    shape = node.tensor.shape
    sums = te.compute(shape, element, name="sums")
    out = te.compute(shape, lambda *index: sums[index].astype(node.tensor.dtype), name="out")
    schedule = loops.start([a, b, out])
    main, end = schedule.get_sblock("sums"), schedule.get_sblock("out")
    *outer, j = schedule.get_loops(end)
    lanes = machine.cpu.vector_bytes // tvm.DataType(dtype).itemsize
    width = next(
        (lanes * v for v in (4, 2, 1) if shape[-1] % (lanes * v) == 0), min(shape[-1], lanes)
    )
    lane = j
    if width < shape[-1]:
        blocks, lane = schedule.split(j, [None, width])
        outer.append(blocks)
    target = schedule.fuse(*outer) if len(outer) > 1 else outer[0]
    if loops.is_large(shape, dtype):
        schedule.parallel(target)
    schedule.set_scope(main, 0, "local")
    schedule.compute_at(main, target, preserve_unit_loops=True)
    loop_j, loop_k = schedule.get_loops(main)[-2:]
    schedule.reorder(loop_k, loop_j)
    if shape[-1] % width == 0:
        schedule.vectorize(loop_j)
        schedule.vectorize(lane)
    init = schedule.decompose_reduction(main, loop_k)
    if shape[-1] % width == 0:
        schedule.vectorize(schedule.get_loops(init)[-1])
    return loops.finished(schedule)
