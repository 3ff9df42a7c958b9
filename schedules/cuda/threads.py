"""What the CUDA schedules share: loops over the threads of a block, and a kernel's interface."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.compute.conv2d_gathered import Product
from tvmconv.hardware import Choice, Decisions, Function, Knob, Machine, Schedule
from tvmconv.lowering.cuda.clusters import MEETING
from tvmconv.lowering.cuda.pipelines import UNIFORM
from tvmconv.lowering.interface import aligned_arrays, prim_func, with_interface
from tvmconv.problem import calling
from tvmconv.problem.calling import Role
from tvmconv.problem.rules import ITEM_BYTES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.cuda.machines import card
from tvmconv.schedules.shared.typed import read

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


@dataclass(frozen=True)
class ProductDecisions:
    """What is decided of a matrix product, whatever multiplies.

    Attributes:
        rows, columns: of a block's tile.
        stages: turns whose operands are in shared memory, or on their way there.
        splits: parts of the sum.
        adding: who adds them up: a second ``kernel``, or the blocks of a ``cluster`` when all are done.
    """

    rows: int
    columns: int
    stages: int
    splits: int
    adding: str

    @property
    def meets(self) -> bool:
        """Whether the blocks of a tile are a cluster."""
        return self.adding == "cluster"


def schedule(
    name: str,
    kind: type[Any],
    accepts: Callable[[ConvSpec, Machine], bool],
    knobs: Callable[[ConvSpec, Machine], tuple[Knob, ...]],
    legal: Callable[[ConvSpec, Machine, Any], bool],
    candidates: Callable[[ConvSpec, Machine], Iterable[Any]],
    cost: Callable[[ConvSpec, Machine, Any], Any],
    apply: Callable[[ConvSpec, Machine, Any], Function],
) -> Schedule:
    """Return a schedule whose decisions are read as a ``kind``; the default is the cheapest candidate.

    ``candidates`` are those to begin with that may be legal.
    """

    def default(spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
        fitting = (each for each in candidates(spec, machine) if legal(spec, machine, each))
        best = min(fitting, key=lambda each: cost(spec, machine, each))
        return {knob.name: getattr(best, knob.name) for knob in knobs(spec, machine)}

    return Schedule(
        name,
        accepts,
        knobs,
        lambda spec, machine, decisions: legal(spec, machine, read(kind, decisions)),
        default,
        lambda spec, machine, decisions: apply(spec, machine, read(kind, decisions)),
    )


def stages(machine: Machine, most: Sequence[int]) -> tuple[int, ...]:
    """Turns that may be on their way: only asynchronous copies let more than one be."""
    return (*most, 2) if card(machine).async_copy else (2, 1)


def first_stages(machine: Machine) -> tuple[int, ...]:
    """Those to begin with."""
    return (3, 4, 6) if card(machine).async_copy else (2,)


def split_knobs(machine: Machine) -> tuple[Knob, Knob]:
    """Parts of the sum, and who adds them up."""
    return Knob("splits", _SPLITS), Knob("adding", _ways(machine))


def splits(machine: Machine) -> list[tuple[int, str]]:
    """Values of both that make sense together."""
    return [(n, way) for way in _ways(machine) for n in _SPLITS if n > 1 or way == "kernel"]


def _ways(machine: Machine) -> tuple[str, ...]:
    return ("kernel", "cluster") if card(machine).cluster_blocks > 1 else ("kernel",)


def can_split(spec: ConvSpec, machine: Machine, tile: ProductDecisions, inner: int) -> bool:
    """No part is empty; a cluster has a block for each, and all of them add up as many rows."""
    depth = spec.kernel_height * spec.kernel_width * spec.in_channels
    if tile.splits > 1 and depth < 2 * inner * tile.splits:
        return False
    in_cluster = 1 < tile.splits <= card(machine).cluster_blocks and tile.rows % tile.splits == 0
    return not tile.meets or in_cluster


def adding_cycles(machine: Machine, p: Product, tile: ProductDecisions) -> float:
    """What split sums cost: they go to L2 and come back, behind a launch or a meeting."""
    if p.splits == 1:
        return 0.0
    across_card = card(machine).multiprocessors * L2_BYTES_A_CYCLE
    moved = 2 * 4 * p.splits * p.padded_rows * p.padded_columns
    return moved / across_card + (MEETING_CYCLES if tile.meets else LAUNCH)


def blocks(
    sch: Loops, p: Product, tile: ProductDecisions, outer: Sequence[Any], inner: Sequence[Any]
) -> Any:
    """Bind the loops over (parts, rows, columns) of tiles outside of ``inner`` ones to a grid of blocks.

    Blocks that run at the same time share what is larger; those of a cluster follow each other.
    """
    part, *tiles = outer
    if _by_columns(p):
        tiles.reverse()
    grid = (*tiles, part) if tile.meets else (part, *tiles)
    sch.reorder(*grid, *inner)
    block = sch.fuse(*grid)
    sch.bind(block, "blockIdx.x")
    if tile.meets:
        sch.annotate(block, MEETING, p.splits)
    return block


def _by_columns(p: Product) -> bool:
    """Whether tiles in one column follow each other."""
    return p.padded_columns > p.padded_rows


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


def add_parts(sch: Loops, spec: ConvSpec, p: Product, tile: ProductDecisions, warps: int) -> None:
    """Schedule the adding of split sums, before anything else is; nothing where there is one part."""
    if tile.meets:
        _add_in_clusters(sch, spec, p, tile, warps)
    elif p.splits > 1:
        _add_in_kernel(sch, spec)


def _add_in_kernel(sch: Loops, spec: ConvSpec) -> None:
    """All parts of four channels are one thread's, in a second kernel."""
    total, out = sch.get_sblock("total"), sch.get_sblock("out")
    lanes = sum_vector(spec.out_channels)
    thread = cover(sch, out, lanes)
    sch.set_scope(total, 0, "local")
    sch.compute_at(total, thread, preserve_unit_loops=True)
    _add(sch, total, lanes)


def _add_in_clusters(
    sch: Loops, spec: ConvSpec, p: Product, tile: ProductDecisions, warps: int
) -> None:
    """Behind `gpu.clusters.MEETING` a cluster's blocks share its tile."""
    total, out = sch.get_sblock("total"), sch.get_sblock("out")
    lanes = sum_vector(spec.out_channels)
    m, n = sch.get_loops(out)
    mo, rank, mi = sch.split(m, [None, p.splits, tile.rows // p.splits])
    no, ni, lane = sch.split(n, [None, tile.columns // lanes, lanes])
    outer = (no, mo) if _by_columns(p) else (mo, no)
    sch.reorder(*outer, rank, mi, ni, lane)
    block = sch.fuse(*outer, rank)
    sch.bind(block, "blockIdx.x")
    sch.annotate(block, MEETING, p.splits)
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
