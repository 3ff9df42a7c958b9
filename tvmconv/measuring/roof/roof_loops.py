"""The loops that `roof` times.

Independent vector multiply-adds in registers; the same with every operand loaded from the first-level
cache, as any matrix product must; and a copy.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import te
from tvm.s_tir import Schedule as Loops

from tvmconv.building.compile import compile_functions
from tvmconv.hardware import Machine
from tvmconv.lowering.interface import prim_func
from tvmconv.measuring.roof.probe import CHAINS, FED_STEPS, FED_TURNS, ROW, STEPS, TURNS, fed_tile


def compiled(machine: Machine, threads: int) -> Any:
    """Compile the loops here and now; returns the module that `roof.Probe` takes."""
    return compile_functions(functions(machine, threads), machine.target).mod


def functions(machine: Machine, threads: int) -> dict[str, tvm.tirx.PrimFunc]:
    """Scheduled functions by name: "fma", "fed", "copy"; each has ``threads`` jobs."""
    lanes = machine.cpu.lanes("float32")
    return {
        "fma": _fma_loop(lanes, threads),
        "fed": _fed_loop(lanes, threads, *fed_tile(machine)),
        "copy": _copy_loop(lanes, threads),
    }


def _fma_loop(lanes: int, threads: int) -> tvm.tirx.PrimFunc:
    """out[t, r, u, v] = sum over k of a[k, u] * b[v]: `probe.CHAINS` of multiply-adds, b in registers."""
    rows, columns = CHAINS[0], CHAINS[1] * lanes
    a = te.placeholder((STEPS, rows), "float32", name="a")
    b = te.placeholder((columns,), "float32", name="b")
    k = te.reduce_axis((0, STEPS), "k")
    out = te.compute(
        (threads, TURNS, rows, columns),
        lambda t, r, u, v: te.sum(a[k, u] * b[v], axis=k),
        name="out",
    )
    return _register_tile([a, b, out], unroll=1)


def _fed_loop(lanes: int, threads: int, pixels: int, vectors: int) -> tvm.tirx.PrimFunc:
    """out[t, r, p, v] = sum over k of a[t, p, k] * b[k, v]: a matrix product within 20 KiB."""
    a = te.placeholder((threads, pixels, FED_STEPS), "float32", name="a")
    b = te.placeholder((FED_STEPS, vectors * lanes), "float32", name="b")
    k = te.reduce_axis((0, FED_STEPS), "k")
    out = te.compute(
        (threads, FED_TURNS, pixels, vectors * lanes),
        lambda t, r, p, v: te.sum(a[t, p, k] * b[k, v], axis=k),
        name="out",
    )
    return _register_tile([a, b, out], unroll=4)


def _register_tile(tensors: list[te.Tensor], unroll: int) -> tvm.tirx.PrimFunc:
    """Keep the last two axes of the output in registers through the reduction."""
    loops = Loops(tvm.IRModule({"main": prim_func(tensors)}))
    block = loops.get_sblock("out")
    store = loops.cache_write(block, 0, "local")
    *turns, u, v, k = loops.get_loops(block)
    k_outer, k_inner = loops.split(k, [None, unroll])
    loops.reorder(*turns, k_outer, k_inner, u, v)
    loops.reverse_compute_at(store, turns[-1], preserve_unit_loops=True)
    loops.parallel(turns[0])
    for loop in (k_inner, u):
        loops.unroll(loop)
    loops.vectorize(v)
    for rest in (loops.decompose_reduction(block, k_outer), store):
        *_, row, lane = loops.get_loops(rest)
        loops.unroll(row)
        loops.vectorize(lane)
    return loops.mod["main"]


def _copy_loop(lanes: int, threads: int) -> tvm.tirx.PrimFunc:
    rows = te.var("rows")
    source = te.placeholder((threads, rows, ROW), "float32", name="source")
    target = te.compute(source.shape, lambda t, r, c: source[t, r, c], name="target")
    loops = Loops(tvm.IRModule({"main": prim_func([source, target])}))
    job, _, column = loops.get_loops(loops.get_sblock("target"))
    loops.parallel(job)
    _, lane = loops.split(column, [None, lanes])
    loops.vectorize(lane)
    return loops.mod["main"]
