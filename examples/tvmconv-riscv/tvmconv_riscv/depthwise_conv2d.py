"""Depthwise convolution with the RISC-V vector extension: a register tile of rows x columns.

THE TILE

A tile of ``rows`` x ``columns`` outputs for ``channels`` channels (m registers) reads each of its inputs
once and uses it for every tap that covers it. For 3x3, stride 1, m = 1:

    tile    inputs   loads/FMA   registers (accumulators + weights + a column of inputs)
    1 x 4   18       18 / 36      4 + 9 + 3
    2 x 4   24       24 / 72      8 + 9 + 4
    2 x 6   32       32 / 108    12 + 9 + 4
    4 x 4   36       36 / 144    16 + 9 + 6 = 31: no register left for the scheduler

The weights stay in registers along a row of tiles; where they do not fit, they are loaded in every tile.

THE BORDER

The padded input is never stored. Tiles are split into first, interior and last, by rows and by columns,
and each kind gets its own code (`tvmconv.lowering.cpu.specialise_tiles`): the interior has no tests.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.compute import depthwise_conv2d
from tvmconv.compute.geometry import Geometry, geometry
from tvmconv.hardware import Choice, Decisions, Function, Knob, Machine, Schedule
from tvmconv.lowering.cpu import power_of_two_runs
from tvmconv.lowering.interface import SPLIT_AT, prim_func, with_interface
from tvmconv.problem.arguments import window_extent
from tvmconv.problem.spec import ConvSpec

# Unrolled vector multiply-adds of one tile: its nine copies, with a load for each, are to fit the 32 KiB
# instruction cache (200 x 2 instructions x 4 bytes = 1.6 KiB a copy).
_MOST_UNROLLED = 200
# Registers that LLVM 22 fills with accumulators, weights and a column of inputs before it spills
# (X60, counted in the assembly, 2026-11: 3x3 none at 2 x 6 = 25, 73 stores at 2 x 7 = 27; where the weights
# do not stay, it loads them ahead: 5x5 14 stores at 2 x 3, 103 at 2 x 4).
_ROOM, _ROOM_FOR_PASSING_WEIGHTS = 25, 12


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Every depthwise_conv2d with an output."""
    return spec.op == "depthwise_conv2d" and not spec.is_empty


def knobs(spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile."""
    return (
        Knob("channels", tuple(_blocks(spec, machine))),
        Knob("columns", tuple(t for t in (4, 6, 7, 8, 3, 2, 1) if t <= spec.out_width)),
        Knob("rows", tuple(t for t in (2, 3, 4, 1) if t <= spec.out_height)),
    )


def _blocks(spec: ConvSpec, machine: Machine) -> list[int]:
    """One or two registers of channels, where they divide; else all at once: 19 are 16 + 2 + 1."""
    lanes, channels = machine.lanes(spec.accumulator_dtype), spec.in_channels
    exact = [width for width in (lanes, 2 * lanes) if channels % width == 0]
    if exact or channels <= 4 * lanes:
        return exact or [channels]
    return [lanes]  # and the last vector is computed element by element


def legal(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """Accumulators and a column of inputs fit the registers, the unrolled code the cache."""
    if decisions["rows"] == decisions["columns"] == 1:
        return True
    return (
        _live(spec, machine, decisions) <= machine.vector_registers
        and _unrolled(spec, decisions) <= _MOST_UNROLLED
    )


def _unrolled(spec: ConvSpec, decisions: Decisions) -> int:
    """Vector multiply-adds of one tile; 19 channels are three vectors."""
    outputs = int(decisions["rows"]) * int(decisions["columns"]) * spec.multiplier
    vectors = len(power_of_two_runs(int(decisions["channels"])))
    return outputs * spec.kernel_height * spec.kernel_width * vectors


def _registers(spec: ConvSpec, machine: Machine, decisions: Decisions) -> int:
    """Registers for each value of the tile."""
    return -(-int(decisions["channels"]) // machine.lanes(spec.accumulator_dtype))


def _live(spec: ConvSpec, machine: Machine, decisions: Decisions) -> int:
    """Registers of the accumulators and of one column of inputs."""
    rows, columns = int(decisions["rows"]), int(decisions["columns"])
    values = rows * columns * spec.multiplier + _window(spec, rows, columns)[0]
    return values * _registers(spec, machine, decisions)


def _weights_stay(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """Whether the weights fit beside them, so that a row of tiles loads them once."""
    weights = spec.kernel_height * spec.kernel_width * spec.multiplier
    return weights * _registers(spec, machine, decisions) + _live(spec, machine, decisions) <= _ROOM


def _window(spec: ConvSpec, rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of input that a tile reads."""
    return (
        (rows - 1) * spec.strides[0] + window_extent(spec.kernel_height, spec.dilations[0]),
        (columns - 1) * spec.strides[1] + window_extent(spec.kernel_width, spec.dilations[1]),
    )


def default(spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    """The tile without spills that has the least estimated time per multiply-add."""
    channels, columns, rows = (knob.candidates for knob in knobs(spec, machine))
    points: list[dict[str, Choice]] = [
        {"channels": channels[0], "columns": column, "rows": row}
        for column in columns
        for row in rows
    ]
    return min(
        (point for point in points if _roomy(spec, machine, point)),
        key=lambda point: _cycles_per_fma(spec, machine, point),
    )


def _roomy(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """Whether the tile is legal and spills next to nothing; one output always is."""
    few = _live(spec, machine, decisions) <= _ROOM_FOR_PASSING_WEIGHTS
    single = decisions["rows"] == decisions["columns"] == 1
    fits = few or _weights_stay(spec, machine, decisions)
    return single or (fits and legal(spec, machine, decisions))


def _cycles_per_fma(spec: ConvSpec, machine: Machine, decisions: Decisions) -> float:
    """The largest of arithmetic, loads and the latency of the taps' chain, over useful multiply-adds."""
    rows, columns = int(decisions["rows"]), int(decisions["columns"])
    taps = spec.kernel_height * spec.kernel_width
    outputs = rows * columns * spec.multiplier
    high, wide = _window(spec, rows, columns)
    loads = min(high * wide, rows * columns * taps)  # with dilation windows may share nothing
    if not _weights_stay(spec, machine, decisions):
        loads += taps * spec.multiplier
    arithmetic = outputs * taps / machine.fma_ports
    cycles = max(arithmetic, loads / machine.load_ports, taps * machine.fma_latency) + loads / 8
    tiles = -(-spec.out_height // rows) * -(-spec.out_width // columns)
    return cycles * tiles / (spec.out_height * spec.out_width * taps * spec.multiplier)


def apply(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """Schedule `tvmconv.compute.depthwise_conv2d.direct`."""
    g = geometry(spec)
    loops = Loops(tvm.IRModule({"main": prim_func(depthwise_conv2d.direct(spec))}))
    _schedule(loops, g, spec, decisions)
    main = with_interface(loops.mod["main"], {}, aligned=frozenset({"filter"}))
    pack = with_interface(prim_func(depthwise_conv2d.pack(spec)), {}, aligned=frozenset({"packed"}))
    return Function(main, pack, depthwise_conv2d.packed_filter_shape(spec))


def _schedule(loops: Loops, g: Geometry, spec: ConvSpec, decisions: Decisions) -> None:
    block, rows, columns = (int(decisions[name]) for name in ("channels", "rows", "columns"))
    conv, out = loops.get_sblock("conv"), loops.get_sblock("out")
    if g.channels_last:
        if g.needs_padding:
            loops.compute_inline(loops.get_sblock("padded"))
        n, h, w, o = loops.get_loops(out)
        channel_tiles, v, q = loops.split(o, [None, block, spec.multiplier])
        lanes = [v, q]
    else:
        store = loops.cache_write(conv, 0, "local")
        for transposed in (loops.get_sblock("padded"), out):
            first, second, *_ = loops.get_loops(transposed)
            loops.parallel(loops.fuse(first, second))
        n, h, w, q, k = loops.get_loops(store)
        channel_tiles, v = loops.split(k, [None, block])
        lanes = [q, v]
    row_tiles, r = loops.split(h, [None, rows])
    column_tiles, c = loops.split(w, [None, columns])
    loops.reorder(n, row_tiles, channel_tiles, column_tiles, r, c, *lanes)
    loops.compute_at(conv, column_tiles, preserve_unit_loops=True)
    if g.channels_last:
        loops.set_scope(conv, 0, "local")
    # Not fused with n: a fused number has no simple border test. Before the reduction is decomposed.
    loops.parallel(row_tiles)
    _schedule_tile(loops, conv, unroll_taps=_unrolled(spec, decisions) <= _MOST_UNROLLED)
    for loop in (r, c, q):
        loops.unroll(loop)
    loops.vectorize(v)
    loops.annotate(row_tiles, SPLIT_AT, _interior(g, 0, rows))
    loops.annotate(column_tiles, SPLIT_AT, _interior(g, 1, columns))
    loops.annotate(channel_tiles, SPLIT_AT, [g.in_channels // block])


def _schedule_tile(loops: Loops, tile: Any, unroll_taps: bool) -> None:
    """Taps outside, the outputs of the tile inside, everything unrolled, channels one vector."""
    n, h, w, q, k, kh, kw = loops.get_loops(tile)[-7:]
    loops.reorder(kh, kw, n, h, w, q, k)
    for loop in (n, h, w, q, *((kh, kw) if unroll_taps else ())):
        loops.unroll(loop)
    loops.vectorize(k)
    init = loops.decompose_reduction(tile, kh)
    *zeroed, lanes = loops.get_loops(init)[-5:]
    for loop in zeroed:
        loops.unroll(loop)
    loops.vectorize(lanes)


def _interior(g: Geometry, axis: int, tile: int) -> list[int]:
    """Return [first, end): the tiles that are whole and whose windows leave out the padding."""
    out = (g.out_height, g.out_width)[axis]
    size = (g.in_height, g.in_width)[axis]
    kernel = (g.kernel_height, g.kernel_width)[axis]
    window = window_extent(kernel, g.dilations[axis])
    first_output = -(-g.pads[axis] // g.strides[axis])
    end_output = min(out, (size + g.pads[axis] - window) // g.strides[axis] + 1)
    first = -(-first_output // tile)
    return [first, max(first, end_output // tile)]


TILED = Schedule("riscv.depthwise_conv2d.tiled", accepts, knobs, legal, default, apply)
