"""Dense convolution on tensor cores: one matrix product, tiles of which are multiplied by warps.

    rows     output pixels of all images      filter packed as [output channel][tap and input channel]
    columns  output channels
    inner    taps x input channels, in slabs of 32 bytes: what one mma.sync multiplies

THE TILE of a block is ``rows`` x ``columns`` sums; its ``warps`` (down x across) share it. A turn brings
``slabs`` slabs of rows and columns to shared memory, from where every warp loads its part:

    registers       rows x columns / (32 threads x warps) sums a thread, 4 words for each 16 rows or columns
    shared memory   (rows + columns) x (32 x slabs + 16) bytes x ``stages``; the 16 bytes keep the eight rows
                    that ldmatrix reads at a time in different banks
    intensity       rows x columns / (rows + columns) multiply-adds for every element from L2: 32 at 64 x 64

TF32. Tensor cores cut 13 of a float32's bits off, so operands are rounded to nearest before: the filter when
it is packed, for nothing at run time, and data in registers behind ldmatrix, two instructions a word in every
warp that loads it: 8 for each 16 rows x 8 values, which are 2 products for each 16 columns of the warp.

Copies run ``stages`` - 1 turns ahead of the multiplications (gpu_pipelines); where input channels are fewer
than 4 bytes' worth they cannot be asynchronous. Padding is zeros that the copies write.

SPLITS. 14x14 pixels x 256 channels are 4 x 4 tiles of 64 x 64, and an H100 has 132 multiprocessors. With
``splits`` the inner extent is cut into parts, each a block's; they write their sums to a workspace, splits x
rows x columns x 8 bytes of traffic there and back, most of it in L2. ``adding`` says who adds them up:

    kernel   a second kernel, behind a launch
    cluster  from compute capability 9.0 on, the blocks of one tile: they are a cluster (gpu.clusters), wait
             for each other, and finish rows / splits each

Adding by whichever block of a tile ends last needs no cluster, but then 16 multiprocessors read what 128 have
written, which takes as long as the launch: not built.

Not measured on a GPU: the default decisions weigh these by the machine's facts alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from tvm.s_tir import Schedule as Loops

from tvmconv.compute import conv2d_gathered
from tvmconv.compute.conv2d_gathered import Product
from tvmconv.hardware import Function, Knob, Machine
from tvmconv.lowering.cuda.pipelines import PIPELINE
from tvmconv.lowering.cuda.warp_tiles import (
    FRAGMENT,
    LOAD_FIRST,
    LOAD_SECOND,
    MULTIPLY,
    SLAB_BYTES,
    STORE,
    TILE_COLUMNS,
    TILE_ROWS,
    ZERO,
)
from tvmconv.lowering.interface import prim_func
from tvmconv.problem.rules import ITEM_BYTES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.cuda import threads
from tvmconv.schedules.cuda.machines import card, tensor_rate

_ROWS = (64, 128, 32, 16)
_COLUMNS = (64, 128, 32, 16)
_WARPS = ("2x2", "2x1", "1x2", "4x1", "1x4", "2x4", "4x2", "1x1")
_SLABS = (2, 4, 8)
# Sums of one thread: with as many again for operands and addresses they stay below 255 registers.
_MOST_SUMS = 128
_PAD_BYTES = 16
# Instructions of a warp in a turn beside its products and their operands, and for each 16 bytes that a thread
# copies: 30 and 4 to 9 in ptxas's code for sm_90 (CUDA 13.0).
_TURN_INSTRUCTIONS, _COPY_INSTRUCTIONS = 30, 7
# Those that round a word of data to TF32.
_ROUND_INSTRUCTIONS = 2
# Cycles that a block waits in every turn, however little it computes: for a barrier and its first operands,
# and for every slab's product, because the next one adds to the same sums. Of the order that arXiv 2402.13499
# reports.
_BARRIER, _PRODUCT = 60, 33


@dataclass(frozen=True)
class _Decisions(threads.ProductDecisions):
    """``warps``, DOWNxACROSS, share a block's tile; ``slabs`` of 32 bytes are brought in a turn."""

    warps: str
    slabs: int

    @property
    def down(self) -> int:
        """Warps one above the other."""
        return int(self.warps.partition("x")[0])

    @property
    def across(self) -> int:
        """Warps side by side."""
        return int(self.warps.partition("x")[2])

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.down * self.across * threads.WARP


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Dense conv2d in NHWC, of a dtype that the tensor cores take; float32 only where TF32 is allowed."""
    kind = "int8" if spec.dtype == "uint8" else spec.dtype
    return (
        kind in card(machine).tensor_core_dtypes
        and (spec.tf32 or spec.dtype != "float32")
        and not spec.is_empty
        and spec.quantized is None  # asynchronous copies put zeros around the image
        and conv2d_gathered.can_gather(spec)
    )


def knobs(_spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile, its warps, what is on its way, and the parts of the sum."""
    return (
        Knob("rows", _ROWS),
        Knob("columns", _COLUMNS),
        Knob("warps", _WARPS),
        Knob("slabs", _SLABS),
        Knob("stages", threads.stages(machine, (3, 4, 6, 8))),
        *threads.split_knobs(machine),
    )


def _inner(spec: ConvSpec, tile: _Decisions) -> int:
    """Elements of a turn."""
    return tile.slabs * SLAB_BYTES // ITEM_BYTES[spec.dtype]


def _product(spec: ConvSpec, tile: _Decisions) -> Product:
    extents = tile.rows, tile.columns, _inner(spec, tile)
    return conv2d_gathered.product(spec, extents, tile.splits)


def _shared_bytes(tile: _Decisions) -> int:
    line = tile.slabs * SLAB_BYTES + _PAD_BYTES
    ahead = tile.stages * (tile.rows + tile.columns) * line
    sums = tile.rows * (tile.columns + 8) * 4 if tile.splits == 1 else 0
    return max(ahead, sums)


def legal(spec: ConvSpec, machine: Machine, tile: _Decisions) -> bool:
    """Warps have whole tiles, sums and slabs fit, every thread copies as much, no part is empty."""
    if tile.rows % (tile.down * TILE_ROWS) or tile.columns % (tile.across * TILE_COLUMNS):
        return False
    inner = _inner(spec, tile)
    wide = threads.vector(16, spec.dtype)
    narrow = threads.vector(spec.in_channels, spec.dtype)
    return (
        tile.rows * inner % (tile.threads * narrow) == 0
        and tile.columns * inner % (tile.threads * wide) == 0
        and tile.rows * tile.columns // tile.threads <= _MOST_SUMS
        and _shared_bytes(tile) <= card(machine).shared_bytes
        and threads.can_split(spec, machine, tile, inner)
    )


def cycles(spec: ConvSpec, machine: Machine, tile: _Decisions) -> float:
    """A rough model of the time, in cycles: waves of blocks, each a latency and its turns.

    A turn takes as long as its multiplications, its bytes from L2 or those to and from shared memory,
    whichever is longest, of all blocks that share a multiprocessor; and no less than a block alone waits.
    """
    gpu, p, inner = card(machine), _product(spec, tile), _inner(spec, tile)
    blocks = p.padded_rows // tile.rows * (p.padded_columns // tile.columns) * p.splits
    warps = tile.down * tile.across
    room = gpu.shared_bytes_per_multiprocessor // (_shared_bytes(tile) + 1024)
    resident = max(1, min(room, gpu.threads_per_multiprocessor // (2 * tile.threads)))
    together = min(resident, -(-blocks // gpu.multiprocessors))
    # Fewer than four warps leave some of the four tensor cores idle.
    rate = tensor_rate(gpu, ITEM_BYTES[spec.dtype]) * min(1.0, together * warps / 4)
    work = tile.rows * tile.columns * inner / rate
    moved = (tile.rows + tile.columns) * tile.slabs * SLAB_BYTES
    traffic = moved / threads.L2_BYTES_A_CYCLE
    # Written once; every warp reads its rows and its columns.
    read = (tile.rows * tile.across + tile.columns * tile.down) * tile.slabs * SLAB_BYTES
    shared = (moved + read) / threads.SHARED_BYTES_A_CYCLE
    # Four schedulers; a warp alone issues every other cycle at best.
    issued = _TURN_INSTRUCTIONS + moved / 16 / tile.threads * _COPY_INSTRUCTIONS
    if spec.tf32:
        issued += _ROUND_INSTRUCTIONS * tile.rows // tile.down * inner / threads.WARP
    issue = issued * max(2, together * warps / 4)
    covered = max(1, together * (tile.stages - 1))
    chain = _BARRIER + _PRODUCT * tile.slabs
    turn = max(together * max(work, traffic, shared), issue, threads.L2_LATENCY / covered, chain)
    waves = -(-blocks // (gpu.multiprocessors * together))
    total: float = waves * (2 * threads.L2_LATENCY + p.depth // inner * turn)
    total += threads.adding_cycles(machine, p, tile)
    return total


def _candidates(_spec: ConvSpec, machine: Machine) -> Iterator[_Decisions]:
    """Those with four warps, or fewer for a small tile."""
    warps = ("2x2", "1x4", "4x1", "2x1", "1x2", "1x1")
    for rows, columns, warp, slabs in product(_ROWS, _COLUMNS, warps, _SLABS):
        for stages, parts in product(threads.first_stages(machine), threads.splits(machine)):
            yield _Decisions(rows, columns, stages, *parts, warp, slabs)


def apply(spec: ConvSpec, _machine: Machine, tile: _Decisions) -> Function:
    """Schedule `compute.conv2d_gathered.implicit_gemm`; raises nothing for legal decisions."""
    p = _product(spec, tile)
    sch = Loops(prim_func(conv2d_gathered.implicit_gemm(spec, p)))
    threads.add_parts(sch, spec, p, tile, tile.down * tile.across)
    _multiply(sch, spec, tile, p)
    made: Function = threads.function(
        spec, sch.mod["main"], conv2d_gathered.pack(spec, p, tf32=spec.tf32), workspace=p.workspace
    )
    return made


def _multiply(sch: Loops, spec: ConvSpec, tile: _Decisions, p: Product) -> None:
    down, across, item = tile.down, tile.across, ITEM_BYTES[spec.dtype]
    slab = SLAB_BYTES // item
    conv, gathered = sch.get_sblock("conv"), sch.get_sblock("gathered")
    if p.splits == 1:
        sch.set_scope(conv, 0, "shared.dyn")
    stored = sch.cache_write(conv, 0, "local")
    part, m, n, k = sch.get_loops(conv)
    mo, mw, mt, mi = sch.split(m, [None, down, tile.rows // down // TILE_ROWS, TILE_ROWS])
    across_each = tile.columns // across // TILE_COLUMNS
    no, nw, nt, ni = sch.split(n, [None, across, across_each, TILE_COLUMNS])
    ko, kt, ki = sch.split(k, [None, tile.slabs, slab])
    inside = (mw, nw, ko, kt, mt, nt, mi, ni, ki)
    block = threads.blocks(sch, p, tile, (part, mo, no), inside)
    warp = sch.fuse(mw, nw)
    sch.bind(warp, "threadIdx.y")
    sch.set_scope(gathered, 0, "shared.dyn")
    first = sch.cache_read(conv, 0, "local")
    filter_ = sch.cache_read(conv, 1, "shared.dyn")
    second = sch.cache_read(conv, 1, "local")
    for operand, load in ((first, LOAD_FIRST), (second, LOAD_SECOND)):
        sch.compute_at(operand, kt, preserve_unit_loops=True)
        _annotate(sch, operand, load, TILE_ROWS, slab)
    wide = threads.vector(16, spec.dtype)
    for copied, lanes in (
        (gathered, threads.vector(spec.in_channels, spec.dtype)),
        (filter_, wide),
    ):
        sch.compute_at(copied, ko, preserve_unit_loops=True)
        threads.cooperate(sch, copied, down * across, lanes)
        sch.storage_align(copied, 0, -2, SLAB_BYTES // item, _PAD_BYTES // item)
    sch.reverse_compute_at(stored, warp, preserve_unit_loops=True)
    _annotate(sch, stored, STORE, TILE_ROWS, TILE_COLUMNS)
    if p.splits == 1:
        sch.storage_align(stored, 0, -2, 32, 8)
        out = sch.get_sblock("out")
        sch.reverse_compute_at(out, block, preserve_unit_loops=True)
        threads.cooperate(sch, out, down * across, threads.sum_vector(spec.out_channels))
    start = sch.decompose_reduction(conv, ko)
    sch.annotate(sch.get_loops(start)[-2], FRAGMENT, ZERO)
    sch.annotate(mi, FRAGMENT, MULTIPLY)
    sch.annotate(ko, PIPELINE, tile.stages)
    for loop in (kt, mt, nt):
        sch.unroll(loop)


def _annotate(sch: Loops, block: Any, what: str, rows: int, columns: int) -> None:
    """Cut a block's last two loops into tiles, and say what is done with each."""
    *_, i, j = sch.get_loops(block)
    io, ii = sch.split(i, [None, rows])
    jo, ji = sch.split(j, [None, columns])
    sch.reorder(io, jo, ii, ji)
    sch.annotate(ii, FRAGMENT, what)
    sch.unroll(io)
    sch.unroll(jo)


SCHEDULES = (
    threads.schedule(
        "cuda.conv2d.tensor", _Decisions, accepts, knobs, legal, _candidates, cycles, apply
    ),
)
