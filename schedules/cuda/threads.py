"""What the CUDA schedules share: loops over the threads of a block, and a kernel's interface."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.compute.conv2d_gathered import Product
from tvmconv.hardware import Decisions, Function, Knob, Machine, Schedule
from tvmconv.lowering.cuda.clusters import MEETING
from tvmconv.lowering.cuda.pipelines import UNIFORM
from tvmconv.lowering.interface import aligned_arrays, prim_func, with_interface
from tvmconv.problem import calling
from tvmconv.problem.calling import Role
from tvmconv.problem.rules import ITEM_BYTES
from tvmconv.problem.spec import ConvSpec

WARP = 32  # threads
# Bytes from L2 that a multiprocessor takes in a cycle (64 asked for, less measured: arXiv 2501.12084 for the
# H100, 2208.11174 for the A100), cycles from asking to having, and those of another launch.
L2_BYTES_A_CYCLE, L2_LATENCY, LAUNCH = 48, 700, 4000
SHARED_BYTES_A_CYCLE = 128  # of a multiprocessor
# Of blocks that meet: the last stores reach L2, the barrier of a cluster, and the first loads come back.
MEETING_CYCLES = 2 * L2_LATENCY + 400
_SPLITS = (1, 2, 4, 8, 16)
_BLOCK = 256  # threads of kernels that go over an array once
_VECTOR_BYTES = 16  # the widest load of a thread
# TVM 0.27 makes no vectors of eight floats: an epilogue, in the sums' 32 bits, has four lanes at most.
_SUM_LANES = 4


def split_knobs(machine: Machine) -> tuple[Knob, Knob]:
    """Parts of the sum, and who adds them up: a second kernel, or a cluster's blocks when all are done."""
    return Knob("splits", _SPLITS), Knob("adding", _ways(machine))


def splits(machine: Machine) -> list[tuple[int, str]]:
    """Values of both that make sense together."""
    return [(n, way) for way in _ways(machine) for n in _SPLITS if n > 1 or way == "kernel"]


def _ways(machine: Machine) -> tuple[str, ...]:
    clusters = machine.gpu is not None and machine.gpu.cluster_blocks > 1
    return ("kernel", "cluster") if clusters else ("kernel",)


def can_add(machine: Machine, rows: int, decisions: Decisions) -> bool:
    """A cluster has as many blocks as there are parts, and all of them add up as many rows."""
    splits = int(decisions["splits"])
    if decisions["adding"] == "kernel":
        return True
    return (
        machine.gpu is not None and 1 < splits <= machine.gpu.cluster_blocks and rows % splits == 0
    )


def adding_cycles(machine: Machine, p: Product, decisions: Decisions) -> float:
    """What split sums cost: they go to L2 and come back, behind a launch or a meeting."""
    if p.splits == 1 or machine.gpu is None:
        return 0.0
    across_card = machine.gpu.multiprocessors * L2_BYTES_A_CYCLE
    moved = 2 * 4 * p.splits * p.padded_rows * p.padded_columns
    return moved / across_card + (LAUNCH if decisions["adding"] == "kernel" else MEETING_CYCLES)


def vector(extent: int, dtype: str) -> int:
    """Elements that a thread copies at once where ``extent`` of them are contiguous and aligned."""
    return math.gcd(extent, _VECTOR_BYTES // ITEM_BYTES[dtype])


def sum_vector(channels: int) -> int:
    """Output channels that a thread finishes at once."""
    return math.gcd(channels, _SUM_LANES)


def cooperate(sch: Loops, block: Any, warps: int, lanes: int) -> None:
    """Spread a block's last two loops over the threads (x, y), ``lanes`` elements at a time.

    Copied elements are contiguous and there, or all padding: ``lanes`` divides the input channels.
    """
    whole = sch.fuse(*sch.get_loops(block)[-2:])
    _, y, x, lane = sch.split(whole, [None, warps, WARP, lanes])
    sch.bind(y, "threadIdx.y")
    sch.bind(x, "threadIdx.x")
    if lanes > 1:
        sch.vectorize(lane)
        sch.annotate(lane, UNIFORM, 1)


def cover(sch: Loops, block: Any, lanes: int = 1) -> Any:
    """Give every thread of enough blocks ``lanes`` elements of a stage; returns the thread's loop."""
    loops = [loop for loop in sch.get_loops(block) if sch.get(loop).kind == tvm.tirx.ForKind.SERIAL]
    *outer, last = loops[: len(sch.get(block).writes[0].region)]
    # Not the last split of all: TVM could not follow indices through (4 x + lane) // channels.
    last, lane = sch.split(last, [None, lanes])
    grid, thread = sch.split(sch.fuse(*outer, last), [None, _BLOCK])
    sch.reorder(grid, thread, lane)
    sch.bind(grid, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    if lanes > 1:
        sch.vectorize(lane)
    return thread


def add_up(sch: Loops, spec: ConvSpec) -> None:
    """Schedule the second kernel of split sums: all parts of four channels are one thread's."""
    total, out = sch.get_sblock("total"), sch.get_sblock("out")
    lanes = sum_vector(spec.out_channels)
    thread = cover(sch, out, lanes)
    sch.set_scope(total, 0, "local")
    sch.compute_at(total, thread, preserve_unit_loops=True)
    _add(sch, total, lanes)


def add_up_in_clusters(
    sch: Loops, spec: ConvSpec, warps: int, tile: tuple[int, int, int], parts: int
) -> None:
    """Schedule the adding of split sums behind `gpu.clusters.MEETING`: a cluster's blocks share its tile.

    ``tile`` is (rows, columns) and whether tiles in one column follow each other.
    """
    total, out = sch.get_sblock("total"), sch.get_sblock("out")
    rows, columns, by_columns = tile
    lanes = sum_vector(spec.out_channels)
    m, n = sch.get_loops(out)
    mo, rank, mi = sch.split(m, [None, parts, rows // parts])
    no, ni, lane = sch.split(n, [None, columns // lanes, lanes])
    outer = (no, mo) if by_columns else (mo, no)
    sch.reorder(*outer, rank, mi, ni, lane)
    block = sch.fuse(*outer, rank)
    sch.bind(block, "blockIdx.x")
    sch.annotate(block, MEETING, parts)
    _, y, thread = sch.split(sch.fuse(mi, ni), [None, warps, WARP])
    sch.bind(y, "threadIdx.y")
    sch.bind(thread, "threadIdx.x")
    if lanes > 1:
        sch.vectorize(lane)
    sch.set_scope(total, 0, "local")
    sch.compute_at(total, thread, preserve_unit_loops=True)
    _add(sch, total, lanes)


def _add(sch: Loops, total: Any, lanes: int) -> None:
    """Unroll the sum over parts, of ``lanes`` channels at once."""
    *_, lane, part = sch.get_loops(total)
    sch.reorder(part, lane)
    if lanes > 1:
        sch.vectorize(lane)
    sch.unroll(part)
    sch.decompose_reduction(total, part)


def stage(sch: Loops, name: str) -> Any | None:
    """The block of a stage, None where the function has none of that name."""
    blocks = sch.get_child_blocks(sch.get_sblock("root"))
    return next((block for block in blocks if sch.get(block).name_hint == name), None)


def direct(func: Any) -> Any:
    """Schedule stages ``padded``, ``conv`` and ``out``: a thread for every output."""
    sch = Loops(func)
    padded = stage(sch, "padded")
    if padded is not None:
        sch.compute_inline(padded)
    conv = sch.get_sblock("conv")
    thread = cover(sch, sch.get_sblock("out"))
    sch.set_scope(conv, 0, "local")
    sch.compute_at(conv, thread, preserve_unit_loops=True)
    return sch.mod["main"]


def function(
    spec: ConvSpec, main: Any, packing: Sequence[Any] | None, workspace: int = 0
) -> Function:
    """Return a kernel and the packing of its filter.

    Args:
        spec: the convolution.
        main: scheduled (data, filter, bias?, residual?, conv?, out).
        packing: tensors (filter, packed), None where ``main`` takes the filter as it is.
        workspace: elements of ``conv`` where that is an argument.
    """
    images = calling.signature(spec).of(Role.INPUT, Role.OUTPUT)
    shapes = {each.name: each.taken_shape for each in images}
    if workspace:
        shapes["conv"] = (workspace,)
    # Alignments matter on a CPU only, which rehearses the kernel: a GPU's callers check theirs.
    main = with_interface(
        main, shapes, aligned_arrays(spec), {"conv": "float32"} if workspace else {}
    )
    if packing is None:
        return Function(main, workspace_bytes=4 * workspace)
    sch = Loops(prim_func(list(packing)))
    cover(sch, sch.get_sblock("packed"))
    pack = with_interface(sch.mod["main"], {}, frozenset({"packed"}))
    shape = tuple(int(extent) for extent in packing[-1].shape)
    return Function(main, pack, shape, 4 * workspace)


def fallback(
    name: str,
    accepts: Callable[[ConvSpec, Machine], bool],
    apply: Callable[[ConvSpec, Machine, Decisions], Function],
) -> Schedule:
    """A schedule without decisions, which comes after all others."""
    return Schedule(
        name,
        accepts,
        lambda _spec, _machine: (),
        lambda _spec, _machine, _decisions: True,
        lambda _spec, _machine: {},
        apply,
        preferred=lambda _spec, _machine: False,
    )
