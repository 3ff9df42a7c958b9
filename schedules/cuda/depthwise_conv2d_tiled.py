"""Depthwise convolution on CUDA cores: a thread makes a tile of outputs of a few channels.

    sums     rows x columns x lanes registers of a thread
    inputs   ((rows - 1) x stride + kernel) x ((columns - 1) x stride + kernel) x lanes: each is loaded once
             for all windows of the tile that it lies in, as vectors of ``lanes`` channels, 4 to 16 bytes
    loads    for 3x3: 9 for an output alone, 18 for a row of 4 (4.5 each), 36 for 4 x 4 (2.25 each)

Neighbouring threads have neighbouring channels, so that a warp reads whole cache lines; rows and columns that
two tiles share come from L1 or L2. There is no shared memory: the time is that of memory, or, for maps of
7x7, of one wave. Small maps need small tiles, or there are too few threads to hide what a load takes.

NCHW, and multipliers above 1, have a thread for every output ("direct").

Not measured on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from tvm.s_tir import Schedule as Loops

from tvmconv.compute import depthwise_conv2d
from tvmconv.hardware import Decisions, Function, Knob, Machine
from tvmconv.lowering.interface import prim_func
from tvmconv.problem.arguments import window_extent
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.cuda import threads
from tvmconv.schedules.cuda.machines import card

_EXTENTS = (1, 2, 4, 7)
_LANES = (4, 2, 1)
_BLOCKS = (128, 64, 256)
# Of 255, for sums and inputs; addresses and weights take the rest.
_MOST_REGISTERS = 160
# Threads for every multiprocessor before a larger tile saves anything: 16 warps hide a load of 500 cycles.
_LEAST_THREADS = 512


@dataclass(frozen=True)
class _Decisions:
    """The tile of a thread, and the threads of a block."""

    rows: int
    columns: int
    lanes: int
    threads: int


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Multiplier 1 in NHWC."""
    # TVM's CUDA has no vectors of what turns sums into bytes.
    plain = accepts_direct(spec, machine) and spec.quantized is None
    return plain and spec.multiplier == 1 and spec.data_format == "NHWC"


def knobs(spec: ConvSpec, _machine: Machine) -> tuple[Knob, ...]:
    """The tile of a thread, and the threads of a block."""
    return (
        Knob("rows", _EXTENTS),
        Knob("columns", _EXTENTS),
        Knob("lanes", _lanes(spec)),
        Knob("threads", _BLOCKS),
    )


def _lanes(spec: ConvSpec) -> tuple[int, ...]:
    return tuple(each for each in _LANES if spec.in_channels % each == 0)


def _inputs(spec: ConvSpec, rows: int, columns: int) -> int:
    """Input pixels of a tile."""
    down = window_extent(spec.kernel_height, spec.dilations[0])
    across = window_extent(spec.kernel_width, spec.dilations[1])
    return ((rows - 1) * spec.strides[0] + down) * ((columns - 1) * spec.strides[1] + across)


def legal(spec: ConvSpec, _machine: Machine, tile: _Decisions) -> bool:
    """Sums and inputs stay in registers, and the tile is no larger than the image."""
    outputs = tile.rows * tile.columns
    registers = (outputs + _inputs(spec, tile.rows, tile.columns)) * tile.lanes
    inside = tile.rows < 2 * spec.out_height and tile.columns < 2 * spec.out_width
    alone = outputs == tile.lanes == 1
    return alone or (inside and registers <= _MOST_REGISTERS)


def _candidates(spec: ConvSpec, _machine: Machine) -> Iterator[_Decisions]:
    for tile in product(_EXTENTS, _EXTENTS, _lanes(spec)):
        yield _Decisions(*tile, _BLOCKS[0])


def _cost(spec: ConvSpec, machine: Machine, tile: _Decisions) -> tuple[float, float]:
    """The loads for an output, more where multiprocessors have too few threads; then the least rows."""
    tiles = -(-spec.out_height // tile.rows) * -(-spec.out_width // tile.columns)
    count = spec.batch * tiles * spec.out_channels // tile.lanes
    loads = tiles * _inputs(spec, tile.rows, tile.columns) / tile.lanes
    enough = _LEAST_THREADS * card(machine).multiprocessors
    return loads * max(1.0, math.sqrt(enough / count)), tile.rows


def apply(spec: ConvSpec, _machine: Machine, tile: _Decisions) -> Function:
    """Schedule `compute.depthwise_conv2d.direct`; raises nothing for legal decisions."""
    sch = Loops(prim_func(depthwise_conv2d.direct(spec)))
    conv, out = sch.get_sblock("conv"), sch.get_sblock("out")
    padded = threads.stage(sch, "padded")
    image, h, w, c = sch.get_loops(out)
    ho, hi = sch.split(h, [None, tile.rows])
    wo, wi = sch.split(w, [None, tile.columns])
    co, ci = sch.split(c, [None, tile.lanes])
    sch.reorder(image, ho, wo, co, hi, wi, ci)
    grid, thread = sch.split(sch.fuse(image, ho, wo, co), [None, tile.threads])
    sch.bind(grid, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    sch.set_scope(conv, 0, "local")
    sch.compute_at(conv, thread, preserve_unit_loops=True)
    window = sch.cache_read(conv, 0, "local") if padded is None else padded
    if padded is not None:
        sch.set_scope(padded, 0, "local")
    sch.compute_at(window, thread, preserve_unit_loops=True)
    ni, hc, wc, qc, cc, kh, kw = sch.get_loops(conv)[-7:]
    sch.reorder(kh, kw, ni, hc, wc, qc, cc)
    # No decompose_reduction, which refuses ragged tiles: unrolled, the first tap alone starts at zero.
    for block in (window, conv, out):
        inner = sch.get_loops(block)[2:]
        for loop in inner[:-1]:
            sch.unroll(loop)
        if tile.lanes > 1 and block is not conv:
            sch.vectorize(inner[-1])
        else:
            sch.unroll(inner[-1])
    made: Function = threads.function(spec, sch.mod["main"], depthwise_conv2d.pack(spec))
    return made


def accepts_direct(spec: ConvSpec, _machine: Machine) -> bool:
    """Every depthwise convolution with an output."""
    return spec.op == "depthwise_conv2d" and not spec.is_empty


def apply_direct(spec: ConvSpec, _machine: Machine, _decisions: Decisions) -> Function:
    """A thread for every output."""
    main = threads.direct(prim_func(depthwise_conv2d.direct(spec)))
    made: Function = threads.function(spec, main, depthwise_conv2d.pack(spec))
    return made


SCHEDULES = (
    threads.schedule(
        "cuda.depthwise_conv2d.window", _Decisions, accepts, knobs, legal, _candidates, _cost, apply
    ),
    threads.fallback("cuda.depthwise_conv2d.direct", accepts_direct, apply_direct),
)
