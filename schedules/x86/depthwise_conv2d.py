"""Depthwise convolution on x86: a register tile of rows x columns for one vector of channels.

THE TILE

Every output channel has its own kernel_height x kernel_width weights and no reduction over channels, so
the only reuse is between neighbouring outputs. A tile of ``rows`` x ``columns`` outputs reads each of
its inputs once and uses it for every tap that covers it. For 3x3, stride 1, one vector of channels:

    tile    inputs   loads/FMA with the weights
    1 x 1    9       (9 + 9) / 9    = 2.0            what XNNPACK does: bound by loads at half the peak
    1 x 4   18       (18 + 9) / 36  = 0.75           4 accumulators: latency shows
    2 x 4   24       (24 + 9) / 72  = 0.46           8 accumulators + 9 weights + inputs <= 32 (AVX-512)
    2 x 7   36       (36 + 9) / 126 = 0.36          14 accumulators + 9 weights + inputs <= 32

AVX2's sixteen registers hold 2 x 4 accumulators and take the weights as memory operands.
At stride 2 neighbouring windows share one row and column only: 2 x 4 has 5 x 9 inputs, 0.75 loads/FMA.

Measured, Sapphire Rapids, one thread, 2026-11-22 (docs/measured.md): 3x3 at stride 1 on 28x28 and smaller
reaches 63 to 67 % of the FMA peak with the default decisions, without an epilogue; larger maps run at
the copy bandwidth.
A fused relu6 costs three operations per output on the ports of its nine multiply-adds: 75 % is the most
that is left. Starting the sums at the bias would save one of the three, but te.create_prim_func (0.27)
drops the init of a te.sum without a word.

THE BORDER

The padded input is never stored: it would double the traffic of an operator that lives on bandwidth.
Tiles are split into first, interior and last, by rows and by columns, and each of the up to nine kinds
gets its own code (`lowering.specialise_tiles`): the interior has no test, the border's tests fold.

THE ORDER of the tile loops; n is always outside

    channels_inner    rows, columns, channels: memory in its own order, weights reloaded per tile
    channels_middle   rows, channels, columns: weights stay in registers along a row of tiles
    channels_outer    channels, rows, columns: they stay for the whole image, but every row is a stride
                      of in_channels apart: cache sets collide when that is a multiple of 1 KiB
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.arguments import window_extent
from tvmconv.compute import depthwise_conv2d
from tvmconv.compute.conv2d import stored_shape
from tvmconv.compute.geometry import Geometry, geometry
from tvmconv.dot_words import DOT
from tvmconv.hardware import Choice, Decisions, Function, Knob, Machine, Schedule
from tvmconv.lowering import LLVM_IR, SPLIT_AT, prim_func, with_interface
from tvmconv.schedules.x86 import dot_products, tiles
from tvmconv.spec import ConvSpec

INNER, MIDDLE, OUTER = "channels_inner", "channels_middle", "channels_outer"

# Unrolled multiply-adds of one tile: beyond this the nine copies outgrow the instruction cache
# (400 FMAs of 6 to 10 bytes with their loads are about 4 KiB a copy, the cache has 32).
_MOST_UNROLLED = 400


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Every depthwise_conv2d with an output."""
    return spec.op == "depthwise_conv2d" and not spec.is_empty


def knobs(spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile and the order of the loops over tiles."""
    lanes = machine.lanes(spec.accumulator_dtype)
    return (
        Knob("channels", tuple(_channel_tiles(spec.in_channels, lanes))),
        Knob("columns", tuple(t for t in (4, 3, 6, 7, 8, 5, 2, 1) if t <= spec.out_width)),
        Knob("rows", tuple(t for t in (2, 3, 4, 1) if t <= spec.out_height)),
        Knob("order", (MIDDLE, INNER, OUTER)),
    )


def _channel_tiles(channels: int, lanes: int) -> list[int]:
    """One or two vectors, exact where possible; odd channel counts get a ragged last tile."""
    widths = [lanes, 2 * lanes, lanes // 2]
    exact = [width for width in widths if width and channels % width == 0]
    if channels <= 2 * lanes:
        exact.append(channels)
    return sorted(set(exact), key=lambda w: abs(w - lanes)) or [min(lanes, channels)]


def legal(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """The tile leaves an eighth of the registers free, and its unrolled code fits the cache."""
    vectors = tiles.vectors(int(decisions["channels"]), machine, spec.accumulator_dtype)
    outputs = int(decisions["rows"]) * int(decisions["columns"]) * spec.multiplier
    if outputs == spec.multiplier:
        return True
    live = outputs * vectors + spec.kernel_height + 2
    return (
        8 * live <= 7 * machine.vector_registers
        and outputs * spec.kernel_height * spec.kernel_width <= _MOST_UNROLLED
    )


def default(spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    """The legal tile of one vector with the least estimated time per multiply-add.

    Where data and output fit the second-level cache, a row of tiles keeps its weights in registers;
    beyond, reading memory in its own order is worth more (Sapphire Rapids, 2026-11, 112x112x96 at stride
    2: 218 us against 296; 56x56x144: 128 against 163).
    """
    space = {knob.name: knob.candidates for knob in knobs(spec, machine)}
    order = MIDDLE if spec.bytes <= machine.l2_bytes else INNER
    points: list[dict[str, Choice]] = [
        {"channels": space["channels"][0], "columns": columns, "rows": rows, "order": order}
        for columns in space["columns"]
        for rows in space["rows"]
    ]
    return min(
        (point for point in points if legal(spec, machine, point)),
        key=lambda point: cycles_per_fma(spec, machine, int(point["rows"]), int(point["columns"])),
    )


def cycles_per_fma(spec: ConvSpec, machine: Machine, rows: int, columns: int) -> float:
    """Estimate cycles per useful vector multiply-add of a rows x columns tile.

    The largest of arithmetic, loads and the latency of the taps' chain. Weights stay in registers if
    accumulators, weights and one column of inputs take at most 25 of 32: beyond that LLVM 22 spills
    (3x3, stride 1, stores: none at 2 x 4 and 2 x 6, 7 at 3 x 4, 46 at 2 x 7, 1250 at 4 x 7; counted in
    the assembly, 2026-11). A spilled register costs a store and a few loads in every tile.
    """
    (sh, sw), (dh, dw) = spec.strides, spec.dilations
    taps, accumulators = spec.kernel_height * spec.kernel_width, rows * columns * spec.multiplier
    window_rows = (rows - 1) * sh + window_extent(spec.kernel_height, dh)
    window_columns = (columns - 1) * sw + window_extent(spec.kernel_width, dw)
    # With dilation neighbouring windows may share nothing.
    inputs = min(window_rows * window_columns, rows * columns * taps)
    room = machine.vector_registers * 25 // 32
    live = accumulators + min(window_rows, rows * spec.kernel_height)
    resident = live + taps * spec.multiplier <= room
    excess = max(0, live + (taps * spec.multiplier if taps <= room // 2 else 2) - room)
    loads = inputs + (0 if resident else taps * spec.multiplier) + 8 * excess
    fmas = accumulators * taps
    cycles = max(fmas / machine.fma_ports, loads / machine.load_ports, taps * machine.fma_latency)
    # A load is not free even where ports suffice: an eighth each breaks ties toward fewer.
    return (cycles + loads / 8) / fmas / _useful(spec, rows, columns)


def _useful(spec: ConvSpec, rows: int, columns: int) -> float:
    """Share of a tile's efficiency that is left with ragged tiles at the edges.

    A ragged tile computes nothing in vain, it is specialised too; it only has fewer accumulators.
    """
    computed: int = tiles.rounded(spec.out_height, rows) * tiles.rounded(spec.out_width, columns)
    return (3 + spec.out_height * spec.out_width / computed) / 4


def apply(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """Schedule `compute.depthwise_conv2d.direct`; raises nothing for legal decisions."""
    g, multiplier = geometry(spec), spec.multiplier
    loops = Loops(tvm.IRModule({"main": prim_func(depthwise_conv2d.direct(spec))}))
    conv, out = loops.get_sblock("conv"), loops.get_sblock("out")
    if g.channels_last:
        _inline_padding(loops, g)
        n, h, w, o = loops.get_loops(out)
        channel_tiles, v, q = loops.split(o, [None, int(decisions["channels"]), multiplier])
        store, lanes = out, [v, q]
    else:
        _transpose_outside(loops, out)
        store = loops.cache_write(conv, 0, "local")
        n, h, w, q, k = loops.get_loops(store)
        channel_tiles, v = loops.split(k, [None, int(decisions["channels"])])
        lanes = [q, v]
    row_tiles, r = loops.split(h, [None, int(decisions["rows"])])
    column_tiles, c = loops.split(w, [None, int(decisions["columns"])])
    nest = {
        INNER: [n, row_tiles, column_tiles, channel_tiles],
        MIDDLE: [n, row_tiles, channel_tiles, column_tiles],
        OUTER: [n, channel_tiles, row_tiles, column_tiles],
    }[str(decisions["order"])]
    loops.reorder(*nest, r, c, *lanes)
    loops.compute_at(conv, nest[-1], preserve_unit_loops=True)
    if g.channels_last:
        loops.set_scope(conv, 0, "local")
    # The second loop and not the fused first two: a fused tile number has no simple border test.
    # Before the reduction is decomposed: afterwards TVM cannot prove it safe.
    loops.parallel(nest[1])
    unrolled = int(decisions["rows"]) * int(decisions["columns"]) * multiplier
    whole = _whole_vector(spec, machine, decisions)
    function = dot_products.multiply_add(spec.dtype, machine, whole)
    unroll_taps = unrolled * g.kernel_height * g.kernel_width <= _MOST_UNROLLED
    _schedule_tile(loops, conv, unroll_taps, whole, None if function is None else function[0])
    for loop in (r, c, q):
        loops.unroll(loop)
    loops.vectorize(v)
    rows, columns = _split_points(g, decisions)
    loops.annotate(row_tiles, SPLIT_AT, rows)
    loops.annotate(column_tiles, SPLIT_AT, columns)
    if g.in_channels % int(decisions["channels"]):
        loops.annotate(channel_tiles, SPLIT_AT, [g.in_channels // int(decisions["channels"])])
    packed = stored_shape(spec, depthwise_conv2d.packed_filter_shape(spec))
    main = with_interface(
        loops.mod["main"],
        {"filter": packed},
        aligned=frozenset({"filter"}),
        dtypes={"filter": spec.filter_dtype},
    )
    if function is not None:
        main = main.with_attr(LLVM_IR, function[1])
    pack = with_interface(
        prim_func(depthwise_conv2d.pack(spec)),
        {"packed": packed},
        aligned=frozenset({"packed"}),
        dtypes={"packed": spec.filter_dtype},
    )
    return Function(main, pack, packed)


def _inline_padding(loops: Loops, g: Geometry) -> None:
    if g.needs_padding:
        loops.compute_inline(loops.get_sblock("padded"))


def _transpose_outside(loops: Loops, out: Any) -> None:
    """NCHW: two passes of their own bring the data to NHWC and the result back."""
    for block in (loops.get_sblock("padded"), out):
        first, second, _, _ = loops.get_loops(block)
        loops.parallel(loops.fuse(first, second))


def _whole_vector(spec: ConvSpec, machine: Machine, decisions: Decisions) -> int:
    """Lanes of a vector that whole tiles of channels consist of; 0 where a tile is ragged."""
    channels, whole = int(decisions["channels"]), machine.lanes(spec.accumulator_dtype)
    if spec.in_channels % channels:
        return 0
    return next((lanes for lanes in (whole, whole // 2) if lanes and channels % lanes == 0), 0)


def _schedule_tile(
    loops: Loops, tile: Any, unroll_taps: bool, lanes: int, function: str | None
) -> None:
    """Taps outside, the outputs of the tile inside, everything unrolled, channels one vector."""
    n, h, w, q, k, kh, kw = loops.get_loops(tile)[-7:]
    loops.reorder(kh, kw, n, h, w, q, k)
    for loop in (n, h, w, q, *((kh, kw) if unroll_taps else ())):
        loops.unroll(loop)
    if function is None:
        loops.vectorize(k)
    else:
        vectors, lane = loops.split(k, [None, lanes])
        loops.unroll(vectors)
    init = loops.decompose_reduction(tile, kh)
    *zeroed, zeros = loops.get_loops(init)[-5:] if function is None else loops.get_loops(init)[-6:]
    for loop in zeroed:
        loops.unroll(loop)
    loops.vectorize(zeros)
    if function is not None:
        loops.annotate(lane, DOT, function)  # not before: the zeros would inherit it


def _split_points(g: Geometry, decisions: Decisions) -> tuple[list[int], list[int]]:
    """Tile numbers where the interior begins and ends, for rows and for columns."""
    rows, columns = int(decisions["rows"]), int(decisions["columns"])
    high = window_extent(g.kernel_height, g.dilations[0])
    wide = window_extent(g.kernel_width, g.dilations[1])
    return (
        tiles.interior(g.out_height, rows, g.in_height, g.pads[0], g.strides[0], high),
        tiles.interior(g.out_width, columns, g.in_width, g.pads[1], g.strides[1], wide),
    )


TILED = Schedule("x86.depthwise_conv2d.tiled", accepts, knobs, legal, default, apply)
SCHEDULES = (TILED,)
