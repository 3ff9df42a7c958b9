"""One row times a matrix: every weight is used once, so all that counts is to read them in order."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from tvm import te

from tvmconv.compute.epilogue import ACTIVATIONS
from tvmconv.hardware import Machine
from tvmconv.models.graph import Array, Node, Tensor
from tvmconv.models.rest import loops

# Vectors of sums at a time: enough to hide the latency of a multiply-add, and few enough for registers.
_VECTORS = 4


def block(outputs: int, dtype: str, machine: Machine) -> int:
    """Return how many outputs are summed up together: the widest block that adds the fewest zeros."""
    lanes = machine.cpu.vector_bytes // np.dtype(dtype).itemsize
    widths = [lanes * vectors for vectors in range(_VECTORS, 0, -1)]
    return min(widths, key=lambda width: -(-outputs // width) * width)


def packed(matrix: Array, block: int) -> Array:
    """Return a matrix (inputs, outputs) as (blocks, inputs, block), with zeros behind the last output."""
    inputs, outputs = matrix.shape
    blocks = -(-outputs // block)
    wide = np.zeros((inputs, blocks * block), matrix.dtype)
    wide[:, :outputs] = matrix
    return np.ascontiguousarray(wide.reshape(inputs, blocks, block).transpose(1, 0, 2))


def function(node: Node, tensors: Sequence[Tensor], machine: Machine) -> Any:
    """Return the scheduled function (data, packed matrix, bias?, out) of a dense node of one row."""
    data, matrix = tensors[:2]
    inputs, outputs = matrix.shape
    width = block(outputs, data.dtype, machine)
    x = te.placeholder((inputs,), data.dtype, name="data")
    w = te.placeholder((-(-outputs // width), inputs, width), data.dtype, name="filter")
    bias = [te.placeholder((outputs,), each.dtype, name="bias") for each in tensors[2:]]
    k = te.reduce_axis((0, inputs), "k")
    sums = te.compute(
        (w.shape[0], width), lambda b, v: te.sum(x[k] * w[b, k, v], axis=[k]), name="sums"
    )

    def finish(o: Any) -> Any:
        value = sums[o // width, o % width]
        value = value + bias[0][o] if bias else value
        return ACTIVATIONS[node.attributes["activation"]](value, data.dtype)

    out = te.compute((outputs,), finish, name="out")
    schedule = loops.start([x, w, *bias, out])
    main, end = schedule.get_sblock("sums"), schedule.get_sblock("out")
    schedule.set_scope(main, 0, "local")
    (o,) = schedule.get_loops(end)
    if outputs > width:
        blocks, lane = schedule.split(o, [None, width])
    else:
        blocks, lane = schedule.split(o, [1, None])
    if prod(matrix.shape) * np.dtype(data.dtype).itemsize >= loops.PARALLEL_BYTES:
        schedule.parallel(blocks)
    schedule.compute_at(main, blocks, preserve_unit_loops=True)
    loop_k, loop_v = schedule.get_loops(main)[-1], schedule.get_loops(main)[-2]
    schedule.reorder(loop_k, loop_v)
    schedule.vectorize(loop_v)
    init = schedule.decompose_reduction(main, loop_k)
    schedule.vectorize(schedule.get_loops(init)[-1])
    if outputs % width == 0:
        schedule.vectorize(lane)
    return loops.finished(schedule, frozenset({"filter"}))
