"""Convolution on CUDA cores: a matrix product in strict float32, and a kernel for everything else.

TILED. ``rows`` output pixels x ``columns`` output channels are the sums of a block of 256 threads, each of
which has four channels of rows x columns / 1024 pixels. Data and filter come to shared memory as in
conv2d_tensor.py, and for four steps of the sum at a time to registers:

    loads    of 16 bytes a thread: rows x columns / 1024 of data and 4 of the filter, for 16 times as many
             multiply-adds: 20 for 256 at 128 x 128
    banks    threads of a warp read the same one or two pixels, and neighbouring channels: no conflicts

DIRECT. A thread makes one output, and reads its data and filter through the caches. Any layout, groups and
dtype; meant to be right, and to have something to be compared with.

Not measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from tvm.s_tir import Schedule as Loops

from tvmconv.compute import conv2d, conv2d_gathered
from tvmconv.compute.conv2d_gathered import Product
from tvmconv.hardware import Decisions, Function, Knob, Machine
from tvmconv.lowering.cuda.pipelines import PIPELINE
from tvmconv.lowering.interface import prim_func
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.cuda import threads
from tvmconv.schedules.cuda.machines import card

_THREADS = 256
_WARPS = _THREADS // threads.WARP
_EXTENTS = (64, 128, 32, 16)
_INNER = (16, 32)
_PIECE = 4  # floats of a 16-byte load: steps of the sum of data, channels of the filter


@dataclass(frozen=True)
class _Decisions(threads.ProductDecisions):
    """``inner``: of a turn."""

    inner: int

    @property
    def down(self) -> int:
        """Threads of a block one above the other; those across have four channels each."""
        return _THREADS * _PIECE // self.columns


def accepts(spec: ConvSpec, _machine: Machine) -> bool:
    """Dense conv2d of float32 in NHWC."""
    return spec.dtype == "float32" and not spec.is_empty and conv2d_gathered.can_gather(spec)


def knobs(_spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile, what is on its way, and the parts of the sum."""
    return (
        Knob("rows", _EXTENTS),
        Knob("columns", _EXTENTS),
        Knob("inner", _INNER),
        Knob("stages", threads.stages(machine, (3, 4, 6))),
        *threads.split_knobs(machine),
    )


def _product(spec: ConvSpec, tile: _Decisions) -> Product:
    return conv2d_gathered.product(spec, (tile.rows, tile.columns, tile.inner), tile.splits)


def legal(spec: ConvSpec, machine: Machine, tile: _Decisions) -> bool:
    """Every thread copies as much, shared memory suffices, no part of the sum is empty."""
    narrow = threads.vector(spec.in_channels, spec.dtype)
    turn = tile.rows * (tile.inner + _PIECE) + tile.inner * tile.columns
    return (
        tile.rows % tile.down == 0
        and tile.rows * tile.inner % (_THREADS * narrow) == 0
        and tile.columns * tile.inner % (_THREADS * _PIECE) == 0
        and 4 * tile.stages * turn <= card(machine).shared_bytes
        and threads.can_split(spec, machine, tile, tile.inner)
    )


def cycles(spec: ConvSpec, machine: Machine, tile: _Decisions) -> float:
    """As conv2d_tensor.cycles, with the multiply-adds of CUDA cores and what they load.

    A multiprocessor loads 128 bytes a cycle from shared memory.
    """
    p, gpu = _product(spec, tile), card(machine)
    blocks = p.padded_rows // tile.rows * (p.padded_columns // tile.columns) * p.splits
    together = min(4, -(-blocks // gpu.multiprocessors))
    work = tile.rows * tile.columns * tile.inner / gpu.fma_lanes
    # A warp's load of one pixel takes a cycle, that of 4 x 32 channels four.
    loads = _WARPS * tile.inner / _PIECE * (tile.rows / tile.down + _PIECE * _PIECE)
    traffic = (tile.rows + tile.columns) * tile.inner * 4 / threads.L2_BYTES_A_CYCLE
    covered = max(1, together * (tile.stages - 1))
    turn = max(together * max(work, loads, traffic), threads.L2_LATENCY / covered)
    waves = -(-blocks // (gpu.multiprocessors * together))
    total: float = waves * (2 * threads.L2_LATENCY + p.depth // tile.inner * turn)
    total += threads.adding_cycles(machine, p, tile)
    return total


def _candidates(_spec: ConvSpec, machine: Machine) -> Iterator[_Decisions]:
    for rows, columns, inner, stages in product(
        _EXTENTS, _EXTENTS, _INNER, threads.first_stages(machine)
    ):
        for parts in threads.splits(machine):
            yield _Decisions(rows, columns, stages, *parts, inner)


def apply(spec: ConvSpec, _machine: Machine, tile: _Decisions) -> Function:
    """Schedule `compute.conv2d_gathered.implicit_gemm`; raises nothing for legal decisions."""
    p = _product(spec, tile)
    sch = Loops(prim_func(conv2d_gathered.implicit_gemm(spec, p, columns_first=False)))
    threads.add_parts(sch, spec, p, tile, _WARPS)
    conv, gathered = sch.get_sblock("conv"), sch.get_sblock("gathered")
    stored = sch.cache_write(conv, 0, "local") if p.splits > 1 else None
    if stored is None:
        sch.set_scope(conv, 0, "local")
    part, m, n, k = sch.get_loops(conv)
    mo, y, mi = sch.split(m, [None, tile.down, tile.rows // tile.down])
    no, x, ni = sch.split(n, [None, tile.columns // _PIECE, _PIECE])
    ko, kt, ki = sch.split(k, [None, tile.inner // _PIECE, _PIECE])
    threads.blocks(sch, p, tile, (part, mo, no), (y, x, ko, kt, ki, mi, ni))
    warp, lane = sch.split(sch.fuse(y, x), [_WARPS, threads.WARP])
    sch.bind(warp, "threadIdx.y")
    sch.bind(lane, "threadIdx.x")
    sch.set_scope(gathered, 0, "shared.dyn")
    first = sch.cache_read(conv, 0, "local")
    filter_ = sch.cache_read(conv, 1, "shared.dyn")
    second = sch.cache_read(conv, 1, "local")
    for operand in (first, second):
        sch.compute_at(operand, kt, preserve_unit_loops=True)
    narrow = threads.vector(spec.in_channels, spec.dtype)
    for copied, lanes in ((gathered, narrow), (filter_, _PIECE)):
        sch.compute_at(copied, ko, preserve_unit_loops=True)
        threads.cooperate(sch, copied, _WARPS, lanes)
    sch.storage_align(gathered, 0, -2, tile.inner, _PIECE)
    out = sch.get_sblock("out")
    sch.reverse_compute_at(out if stored is None else stored, lane, preserve_unit_loops=True)
    start = sch.decompose_reduction(conv, ko)
    whole = stored is not None or spec.out_channels % _PIECE == 0
    last = ((stored or out), whole)
    for nest, vectors in ((first, True), (second, True), (start, False), (conv, False), last):
        *_, i, j = sch.get_loops(nest)
        sch.unroll(i)
        sch.vectorize(j) if vectors else sch.unroll(j)
    sch.unroll(ki)
    sch.annotate(ko, PIPELINE, tile.stages)
    packing = conv2d_gathered.pack(spec, p, columns_first=False)
    made: Function = threads.function(spec, sch.mod["main"], packing, workspace=p.workspace)
    return made


def accepts_direct(spec: ConvSpec, _machine: Machine) -> bool:
    """Every conv2d with an output."""
    return spec.op == "conv2d" and not spec.is_empty


def apply_direct(spec: ConvSpec, _machine: Machine, _decisions: Decisions) -> Function:
    """Schedule `compute.conv2d.direct`: a thread for every output."""
    group, _ = conv2d.filter_blocks(spec, 1)
    # Neighbouring threads make neighbouring channels, and read their filters side by side.
    width = min(group, threads.WARP)
    main = threads.direct(prim_func(conv2d.direct(spec, width)))
    made: Function = threads.function(spec, main, conv2d.pack(spec, width))
    return made


SCHEDULES = (
    threads.schedule(
        "cuda.conv2d.tiled", _Decisions, accepts, knobs, legal, _candidates, cycles, apply
    ),
    threads.fallback("cuda.conv2d.direct", accepts_direct, apply_direct),
)
