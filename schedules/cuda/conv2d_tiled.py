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

from itertools import product

from tvm.s_tir import Schedule as Loops

from tvmconv.compute import conv2d, conv2d_gathered
from tvmconv.compute.conv2d_gathered import Product
from tvmconv.hardware import Choice, Decisions, Function, Knob, Machine, Schedule
from tvmconv.lowering.cuda.clusters import MEETING
from tvmconv.lowering.cuda.pipelines import PIPELINE
from tvmconv.lowering.interface import prim_func
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.cuda import threads

_THREADS = 256
_WARPS = _THREADS // threads.WARP
_EXTENTS = (64, 128, 32, 16)
_PIECE = 4  # floats of a 16-byte load: steps of the sum of data, channels of the filter


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Dense conv2d of float32 in NHWC."""
    return (
        machine.gpu is not None
        and spec.dtype == "float32"
        and not spec.is_empty
        and conv2d_gathered.can_gather(spec)
    )


def knobs(spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile, what is on its way, and the parts of the sum."""
    ahead = machine.gpu is not None and machine.gpu.async_copy
    return (
        Knob("rows", _EXTENTS),
        Knob("columns", _EXTENTS),
        Knob("inner", (16, 32)),
        Knob("stages", (3, 4, 6, 2) if ahead else (2, 1)),
        *threads.split_knobs(machine),
    )


def _tile(decisions: Decisions) -> tuple[int, int, int]:
    return int(decisions["rows"]), int(decisions["columns"]), int(decisions["inner"])


def _down(columns: int) -> int:
    """Threads of a block one above the other; those across have four channels each."""
    return _THREADS * _PIECE // columns


def _product(spec: ConvSpec, decisions: Decisions) -> Product:
    return conv2d_gathered.product(spec, _tile(decisions), int(decisions["splits"]))


def legal(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """Every thread copies as much, shared memory suffices, no part of the sum is empty."""
    rows, columns, inner = _tile(decisions)
    narrow = threads.vector(spec.in_channels, spec.dtype)
    depth = spec.kernel_height * spec.kernel_width * spec.in_channels
    turn = rows * (inner + _PIECE) + inner * columns
    shared = 4 * int(decisions["stages"]) * turn
    return (
        rows % _down(columns) == 0
        and rows * inner % (_THREADS * narrow) == 0
        and columns * inner % (_THREADS * _PIECE) == 0
        and machine.gpu is not None
        and shared <= machine.gpu.shared_bytes
        and (int(decisions["splits"]) == 1 or depth >= 2 * inner * int(decisions["splits"]))
        and threads.can_add(machine, rows, decisions)
    )


def cycles(spec: ConvSpec, machine: Machine, decisions: Decisions) -> float:
    """As tensor_conv2d.cycles, with the multiply-adds of CUDA cores and what they load.

    A multiprocessor loads 128 bytes a cycle from shared memory.
    """
    assert machine.gpu is not None  # noqa: S101 - the pack's machines all have one
    p, (rows, columns, inner) = _product(spec, decisions), _tile(decisions)
    blocks = p.padded_rows // rows * (p.padded_columns // columns) * p.splits
    together = min(4, -(-blocks // machine.gpu.multiprocessors))
    work = rows * columns * inner / (machine.fma_ports * _PIECE)
    # A warp's load of one pixel takes a cycle, that of 4 x 32 channels four.
    loads = _WARPS * inner / _PIECE * (rows / _down(columns) + _PIECE * _PIECE)
    traffic = (rows + columns) * inner * 4 / threads.L2_BYTES_A_CYCLE
    covered = max(1, together * (int(decisions["stages"]) - 1))
    turn = max(together * max(work, loads, traffic), threads.L2_LATENCY / covered)
    waves = -(-blocks // (machine.gpu.multiprocessors * together))
    total: float = waves * (2 * threads.L2_LATENCY + p.depth // inner * turn)
    total += threads.adding_cycles(machine, p, decisions)
    return total


def default(spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    """The least `cycles` of the legal decisions."""
    names = [knob.name for knob in knobs(spec, machine)]
    stages = (3, 4, 6) if machine.gpu is not None and machine.gpu.async_copy else (2,)
    candidates = [
        dict(zip(names, (*tile, *parts), strict=True))
        for tile in product(_EXTENTS, _EXTENTS, (16, 32), stages)
        for parts in threads.splits(machine)
    ]
    fitting = [each for each in candidates if legal(spec, machine, each)]
    return min(fitting, key=lambda each: cycles(spec, machine, each))


def apply(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """Schedule `compute.gathered_conv2d.implicit_gemm`; raises nothing for legal decisions."""
    p, (rows, columns, inner) = _product(spec, decisions), _tile(decisions)
    sch = Loops(prim_func(conv2d_gathered.implicit_gemm(spec, p, columns_first=False)))
    meeting, by_columns = decisions["adding"] == "cluster", p.padded_columns > p.padded_rows
    if meeting:
        threads.add_up_in_clusters(sch, spec, _WARPS, (rows, columns, by_columns), p.splits)
    elif p.splits > 1:
        threads.add_up(sch, spec)
    conv, gathered = sch.get_sblock("conv"), sch.get_sblock("gathered")
    stored = sch.cache_write(conv, 0, "local") if p.splits > 1 else None
    if stored is None:
        sch.set_scope(conv, 0, "local")
    down = _down(columns)
    part, m, n, k = sch.get_loops(conv)
    mo, y, mi = sch.split(m, [None, down, rows // down])
    no, x, ni = sch.split(n, [None, columns // _PIECE, _PIECE])
    ko, kt, ki = sch.split(k, [None, inner // _PIECE, _PIECE])
    outer = (no, mo) if by_columns else (mo, no)
    grid = (*outer, part) if meeting else (part, *outer)
    sch.reorder(*grid, y, x, ko, kt, ki, mi, ni)
    block = sch.fuse(*grid)
    sch.bind(block, "blockIdx.x")
    if meeting:
        sch.annotate(block, MEETING, p.splits)
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
    sch.storage_align(gathered, 0, -2, inner, _PIECE)
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
    sch.annotate(ko, PIPELINE, int(decisions["stages"]))
    packing = conv2d_gathered.pack(spec, p, columns_first=False)
    made: Function = threads.function(spec, sch.mod["main"], packing, workspace=p.workspace)
    return made


def accepts_direct(spec: ConvSpec, machine: Machine) -> bool:
    """Every conv2d with an output."""
    return machine.gpu is not None and spec.op == "conv2d" and not spec.is_empty


def apply_direct(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """Schedule `compute.conv2d.direct`: a thread for every output."""
    group, _ = conv2d.filter_blocks(spec, 1)
    # Neighbouring threads make neighbouring channels, and read their filters side by side.
    width = min(group, threads.WARP)
    main = threads.direct(prim_func(conv2d.direct(spec, width)))
    made: Function = threads.function(spec, main, conv2d.pack(spec, width))
    return made


SCHEDULES = (
    Schedule("cuda.conv2d.tiled", accepts, knobs, legal, default, apply),
    threads.fallback("cuda.conv2d.direct", accepts_direct, apply_direct),
)
