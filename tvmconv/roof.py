"""What this machine can do at most: multiply-adds and copied bytes a second, measured.

Loops compiled by the same compiler for the same target as the kernels: independent vector multiply-adds
in registers; the same with every operand loaded from the first-level cache, as any matrix product must;
and a copy. The idea of measuring the roof instead of reading a data
sheet is the roofline model's (Williams, Waterman, Patterson, CACM 52(4), 2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import te
from tvm.s_tir import Schedule as Loops

from tvmconv import lowering, timing
from tvmconv.hardware import Machine
from tvmconv.runtime import arrays

# Independent chains of multiply-adds: above latency x ports (8, or 10 on Haswell) on every core.
_CHAINS = 12
_STEPS = 4096
# Pixels x vectors of the tile fed from the cache, by the number of vector registers.
_TILES = {32: (6, 4), 16: (4, 3)}
_FED_STEPS, _FED_TURNS = 64, 64
_LAST_LEVEL_BYTES = 16 << 20
_MEMORY_BYTES = 256 << 20


@dataclass(frozen=True)
class Bandwidth:
    """Bytes a second, read plus written, for working sets of at most ``working_set`` bytes."""

    working_set: int
    bytes_per_second: float


@dataclass(frozen=True)
class Roof:
    """float32 operations a second (two per multiply-add) and bandwidths, smallest set first.

    ``fed_flops_per_second`` is what is left when operands come from the first-level cache: on Sapphire
    Rapids 86 to 94 % of ``flops_per_second``; 94 % for a loop in C with intrinsics (2026-11).
    """

    flops_per_second: float
    fed_flops_per_second: float
    bandwidths: tuple[Bandwidth, ...]

    def bandwidth(self, working_set: int) -> float:
        """Bytes a second for a working set: that of the smallest measured one that holds it."""
        for level in self.bandwidths:
            if working_set <= level.working_set:
                return level.bytes_per_second
        return self.bandwidths[-1].bytes_per_second


class Probe:
    """The three loops, compiled for one machine and a number of threads."""

    def __init__(self, machine: Machine, threads: int) -> None:
        self._threads = threads
        lanes = machine.lanes("float32")
        tile = _TILES[machine.vector_registers]
        functions = {
            "fma": _fma_loop(lanes, threads),
            "fed": _fed_loop(lanes, threads, *tile),
            "copy": _copy_loop(lanes, threads),
        }
        module = lowering.compile_functions(functions, machine.target).mod
        self._module = module
        a = arrays.empty_aligned((_STEPS,), np.float32)
        b = arrays.empty_aligned((_CHAINS, lanes), np.float32)
        out = arrays.empty_aligned((threads, _CHAINS, lanes), np.float32)
        a[...], b[...] = 1e-3, 1.0
        self._fma = _pointers([a, b, out])
        self._fma_flops = 2 * _STEPS * out.size
        pixels, channels = tile[0], tile[1] * lanes
        fed = [
            (threads, pixels, _FED_STEPS),
            (_FED_STEPS, channels),
            (threads, _FED_TURNS, pixels, channels),
        ]
        fed_arrays = [arrays.empty_aligned(shape, np.float32) for shape in fed]
        fed_arrays[0][...], fed_arrays[1][...] = 1e-3, 1.0
        self._fed = _pointers(fed_arrays)
        self._fed_flops = 2 * _FED_STEPS * fed_arrays[2].size
        self._l2_bytes = machine.l2_bytes // 2

    def flops_per_second(self, least_ms: float = 3.0) -> float:
        """Measure the arithmetic roof once, for ``least_ms`` milliseconds.

        Look as long as the kernel runs beside it, so that a changing clock hits both alike.
        """
        (seconds,) = timing.seconds(self._module, "fma", self._fma, 1, least_ms)
        return self._fma_flops / seconds

    def fed_flops_per_second(self, least_ms: float = 3.0) -> float:
        """Measure the arithmetic roof with operands from the first-level cache, as above."""
        (seconds,) = timing.seconds(self._module, "fed", self._fed, 1, least_ms)
        return self._fed_flops / seconds

    def bandwidth(self, working_set: int, repeats: int = 5) -> float:
        """Measure bytes a second of copying half of ``working_set`` bytes to the other half."""
        rows = working_set // 2 // 4 // (16 * 64 * self._threads)
        source = arrays.empty_aligned((self._threads, rows, 16 * 64), np.float32)
        target = arrays.empty_aligned(source.shape, np.float32)
        source[...] = target[...] = 1.0
        pointers = _pointers([source, target])
        fastest = min(timing.seconds(self._module, "copy", pointers, repeats, 3.0))
        return 2 * source.nbytes / fastest

    def roof(self) -> Roof:
        """Measure everything: medians of eleven arithmetic probes, three levels of memory."""
        flops = float(np.median([self.flops_per_second() for _ in range(11)]))
        fed = float(np.median([self.fed_flops_per_second() for _ in range(11)]))
        sizes = (self._l2_bytes, _LAST_LEVEL_BYTES, _MEMORY_BYTES)
        return Roof(flops, fed, tuple(Bandwidth(size, self.bandwidth(size)) for size in sizes))


def _fma_loop(lanes: int, threads: int) -> tvm.tirx.PrimFunc:
    """out[t, u, v] = sum over k of a[k] * b[u, v]: one broadcast feeds `_CHAINS` multiply-adds."""
    a = te.placeholder((_STEPS,), "float32", name="a")
    b = te.placeholder((_CHAINS, lanes), "float32", name="b")
    k = te.reduce_axis((0, _STEPS), "k")
    out = te.compute(
        (threads, _CHAINS, lanes), lambda t, u, v: te.sum(a[k] * b[u, v], axis=k), name="out"
    )
    return _register_tile([a, b, out], unroll=1)


def _fed_loop(lanes: int, threads: int, pixels: int, vectors: int) -> tvm.tirx.PrimFunc:
    """out[t, r, p, v] = sum over k of a[t, p, k] * b[k, v]: a matrix product within 20 KiB."""
    a = te.placeholder((threads, pixels, _FED_STEPS), "float32", name="a")
    b = te.placeholder((_FED_STEPS, vectors * lanes), "float32", name="b")
    k = te.reduce_axis((0, _FED_STEPS), "k")
    out = te.compute(
        (threads, _FED_TURNS, pixels, vectors * lanes),
        lambda t, r, p, v: te.sum(a[t, p, k] * b[k, v], axis=k),
        name="out",
    )
    return _register_tile([a, b, out], unroll=4)


def _register_tile(tensors: list[te.Tensor], unroll: int) -> tvm.tirx.PrimFunc:
    """Keep the last two axes of the output in registers through the reduction."""
    loops = Loops(tvm.IRModule({"main": lowering.prim_func(tensors)}))
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
    source = te.placeholder((threads, rows, 16 * 64), "float32", name="source")
    target = te.compute(source.shape, lambda t, r, c: source[t, r, c], name="target")
    loops = Loops(tvm.IRModule({"main": lowering.prim_func([source, target])}))
    job, _, column = loops.get_loops(loops.get_sblock("target"))
    loops.parallel(job)
    _, lane = loops.split(column, [None, lanes])
    loops.vectorize(lane)
    return loops.mod["main"]


def _pointers(buffers: list[arrays.Array]) -> tuple[Any, ...]:
    return tuple(arrays.array_pointer(buffer) for buffer in buffers)
