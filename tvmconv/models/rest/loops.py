"""The rule that schedules what is not a convolution: outer loops in parallel, vectors inside."""

from __future__ import annotations

from math import prod
from typing import Any

import tvm
from tvm import s_tir

from tvmconv.hardware import Machine
from tvmconv.lowering.interface import SPLIT_AT, prim_func, with_interface

# Of the result: below that, waking threads takes longer than they save.
PARALLEL_BYTES = 64 * 1024


def start(tensors: list[Any]) -> s_tir.Schedule:
    """Return the unscheduled loops of tensors, all of them arguments, the last one the result."""
    return s_tir.Schedule(tvm.IRModule({"main": prim_func(tensors)}))


def finished(schedule: s_tir.Schedule, aligned: frozenset[str] = frozenset()) -> Any:
    """Return the function; arguments that are not in ``aligned`` may lie anywhere."""
    return with_interface(schedule.mod["main"], {}, aligned)


def extent(schedule: s_tir.Schedule, loop: Any) -> int:
    """How often a loop runs."""
    return int(schedule.get(loop).extent)


def is_large(shape: tuple[int, ...], dtype: str) -> bool:
    """Whether a result is worth several threads."""
    return bool(prod(shape) * tvm.DataType(dtype).itemsize >= PARALLEL_BYTES)


def vectorise(
    schedule: s_tir.Schedule, loop: Any, lanes: int, split_at: tuple[int, ...] = ()
) -> Any:
    """Cut a loop into vectors; returns the loop over whole vectors, None where there is one only.

    The ragged end, and the vectors at ``split_at``, become pieces of their own, without conditions.
    """
    length = extent(schedule, loop)
    if length <= lanes:
        schedule.vectorize(loop)
        return None
    outer, inner = schedule.split(loop, [None, lanes])
    schedule.vectorize(inner)
    points = sorted({*split_at, *([length // lanes] if length % lanes else [])})
    if points:
        schedule.annotate(outer, SPLIT_AT, points)
    return outer


def apply_rule(
    schedule: s_tir.Schedule,
    machine: Machine,
    shape: tuple[int, ...],
    dtype: str,
    split_at: tuple[int, ...] = (),
    fuse: int | None = None,
) -> None:
    """Schedule the block ``out``, whose loops are its spatial axes.

    ``fuse`` is how many outer loops become the parallel one: all of them, unless what is computed of the
    inner ones' variables is worth keeping over a row.
    """
    *outer, inner = schedule.get_loops(schedule.get_sblock("out"))
    lanes = machine.cpu.vector_bytes // tvm.DataType(dtype).itemsize
    vectors = vectorise(schedule, inner, lanes, split_at)
    if not is_large(shape, dtype):
        return
    fused = outer[:fuse]
    if fused:
        schedule.parallel(schedule.fuse(*fused) if len(fused) > 1 else fused[0])
    elif vectors is not None:
        schedule.parallel(vectors)
