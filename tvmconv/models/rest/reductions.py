"""Reductions over axes, softmax among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Final

import tvm
from tvm import te, tirx

from tvmconv.hardware import Machine
from tvmconv.lowering.runs import power_of_two_runs
from tvmconv.models.graph import Node, Tensor
from tvmconv.models.rest import loops
from tvmconv.problem.rules import summed_in

_REDUCERS: Final[Mapping[str, Callable[..., Any]]] = {
    "mean": te.sum,
    "sum": te.sum,
    "max": te.max,
    "min": te.min,
    "prod": te.comm_reducer(lambda x, y: x * y, lambda dtype: tirx.const(1, dtype), name="prod"),
}
# Vectors of sums at a time, where the last axis stays: their additions do not wait for each other.
_VECTORS = 4
_MOST = 8  # of a block: they stay in registers
Shape = tuple[int, ...]


def merged(shape: Shape, axes: Sequence[int]) -> tuple[Shape, tuple[bool, ...]]:
    """Merge neighbouring axes that are both reduced or both kept; returns extents, and which are reduced."""
    extents: list[int] = []
    reduced: list[bool] = []
    for axis, extent in enumerate(shape):
        if extent == 1:
            continue
        if reduced and reduced[-1] == (axis in axes):
            extents[-1] *= extent
        else:
            extents.append(extent)
            reduced.append(axis in axes)
    return tuple(extents) or (1,), tuple(reduced) or (False,)


def reduction(node: Node, tensors: Sequence[Tensor], machine: Machine) -> Any:
    """Return the function of mean, sum, max, min and prod."""
    data = tensors[0]
    extents, gone = merged(data.shape, node.attributes["axes"])
    x = te.placeholder(extents, data.dtype, name="x")
    return reduction_of([x], lambda index: x[index], extents, gone, data, node, machine)


def reduction_of(
    arguments: Sequence[te.Tensor],
    read: Callable[[tuple[Any, ...]], Any],
    extents: Shape,
    reduced: Sequence[bool],
    data: Tensor,
    node: Node,
    machine: Machine,
) -> Any:
    """Return the function of a reduction of what ``read`` makes of the arguments at an index of ``extents``.

    ``reduced`` says which axes go; ``data`` is shape and dtype of what is read.
    """
    kept = tuple(e for e, gone in zip(extents, reduced, strict=True) if not gone) or (1,)
    summed = summed_in(data.dtype)
    dtype = node.tensor.dtype if node.tensor.dtype == "int32" else summed  # sums of bytes
    over = [te.reduce_axis((0, e)) for e, gone in zip(extents, reduced, strict=True) if gone]
    count = prod(int(axis.dom.extent) for axis in over)

    def element(*index: Any) -> Any:
        spatial, inner = iter(index), iter(over)
        value = read(tuple(next(inner) if gone else next(spatial) for gone in reduced)).astype(
            dtype
        )
        return _REDUCERS[node.op](value, axis=over) if over else value

    sums = te.compute(kept, element, name="sums")

    def finish(*index: Any) -> Any:
        value = sums[index]
        if node.op == "mean":
            value = (
                value * tirx.const(1 / count, dtype)
                if dtype.startswith("float")
                else tirx.truncdiv(value, tirx.const(count, dtype))
            )
        return value.astype(node.tensor.dtype)

    schedule = loops.start([*arguments, te.compute(kept, finish, name="out")])
    if over:
        _schedule(schedule, machine, data, reduced[-1])
    else:
        schedule.compute_inline(schedule.get_sblock("sums"))
        loops.apply_rule(schedule, machine, kept, node.tensor.dtype)
    return loops.finished(schedule)


def width_of(extent: int, lanes: int) -> int:
    """Return how many elements of the last axis are summed up at a time: the fewest vectors for all of them.

    A divisor of the extent, so that no vector has a condition. What fills no vector is cut into powers of
    two: 120 is 4 vectors of 16, 2 more, one and a half.
    """

    def cost(width: int) -> tuple[float, int]:
        runs = power_of_two_runs(width)
        vectors = sum(-(-(end - begin) // lanes) for begin, end in runs)
        in_memory = 3 if vectors > _MOST else 1  # loads and stores for each addition
        # Too few of them wait for each other's additions.
        return in_memory * max(vectors, _VECTORS) / width, -width

    divisors = [width for width in range(1, _MOST * lanes + 1) if extent % width == 0]
    return min([*divisors, extent], key=cost)


def _schedule(schedule: Any, machine: Machine, data: Tensor, last_reduced: bool) -> None:
    main, out = schedule.get_sblock("sums"), schedule.get_sblock("out")
    lanes = machine.cpu.vector_bytes // tvm.DataType(data.dtype).itemsize
    *outer, inner = schedule.get_loops(out)
    extent = loops.extent(schedule, inner)
    if not last_reduced:
        blocks, inner = schedule.split(inner, [None, width_of(extent, lanes)])
        outer.append(blocks)
    target = schedule.fuse(*outer) if len(outer) > 1 else outer[0] if outer else None
    if target is not None and loops.is_large(data.shape, data.dtype):
        schedule.parallel(target)
    if last_reduced or target is None:
        if last_reduced:
            schedule.compute_at(main, inner)
        return
    schedule.set_scope(main, 0, "local")
    schedule.compute_at(main, target, preserve_unit_loops=True)
    _vectors_inside(schedule, main, inner)


def _vectors_inside(schedule: Any, main: Any, out_lane: Any) -> None:
    """Sum up whole vectors: the reduction outside, the kept lanes inside."""
    all_loops = schedule.get_loops(main)
    kinds = [int(each.iter_type) for each in schedule.get(main).iter_vars]
    own = all_loops[-len(kinds) :]
    inner = [loop for loop, kind in zip(own, kinds, strict=True) if kind == 2]
    lanes = [loop for loop, kind in zip(own, kinds, strict=True) if kind != 2]
    schedule.reorder(*inner, *lanes)
    schedule.vectorize(lanes[-1])
    init = schedule.decompose_reduction(main, inner[0])
    schedule.vectorize(schedule.get_loops(init)[-1])
    schedule.vectorize(out_lane)


def softmax(node: Node, tensors: Sequence[Tensor], machine: Machine) -> Any:
    """Return the function of softmax and log_softmax: of exponentials less the largest."""
    shape, axis = node.tensor.shape, node.attributes["axis"] % max(len(node.tensor.shape), 1)
    before, extent, after = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    dtype = summed_in(node.tensor.dtype)
    x = te.placeholder((before, extent, after), node.tensor.dtype, name="x")
    k, j = te.reduce_axis((0, extent), "k"), te.reduce_axis((0, extent), "j")
    rows = (before, after)
    high = te.compute(rows, lambda b, a: te.max(x[b, k, a].astype(dtype), axis=k), name="high")
    powers = te.compute(
        x.shape, lambda b, i, a: tirx.exp(x[b, i, a].astype(dtype) - high[b, a]), name="powers"
    )
    total = te.compute(rows, lambda b, a: te.sum(powers[b, j, a], axis=j), name="total")

    def finish(b: Any, i: Any, a: Any) -> Any:
        if node.op == "log_softmax":
            value = x[b, i, a].astype(dtype) - high[b, a] - tirx.log(total[b, a])
        else:
            value = powers[b, i, a] / total[b, a]
        return value.astype(node.tensor.dtype)

    out = te.compute(x.shape, finish, name="out")
    schedule = loops.start([x, out])
    row = schedule.get_loops(schedule.get_sblock("out"))[0]
    if loops.is_large(shape, dtype):
        schedule.parallel(row)
    for name in ("total", "powers", "high"):
        schedule.compute_at(schedule.get_sblock(name), row, preserve_unit_loops=True)
    return loops.finished(schedule)


def arg_max(node: Node, tensors: Sequence[Tensor], machine: Machine) -> Any:
    """Return the function of arg_max: the least index at which the largest element stands."""
    shape, axis = tensors[0].shape, node.attributes["axis"]
    before, extent, after = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    x = te.placeholder((before, extent, after), tensors[0].dtype, name="x")
    k, j = te.reduce_axis((0, extent), "k"), te.reduce_axis((0, extent), "j")
    rows = (before, after)
    high = te.compute(rows, lambda b, a: te.max(x[b, k, a], axis=k), name="high")
    last = tirx.const(extent - 1, "int32")  # also where all elements are NaN
    first = te.compute(
        rows,
        lambda b, a: te.min(tirx.Select(x[b, j, a] >= high[b, a], j, last), axis=j),
        name="first",
    )
    out = te.compute(rows, lambda b, a: first[b, a].astype(node.tensor.dtype), name="out")
    return loops.finished(loops.start([x, out]))
