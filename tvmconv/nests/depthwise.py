"""The loop nest of a depthwise convolution on any CPU: rows x columns of outputs, a vector of channels.

Its decisions are "channels", "rows" and "columns" of a tile, the "order" of the loops over tiles, and
"taps", if the hardware leaves it open: which way the unrolled multiply-adds of a tile follow each other.

    outside   a tap for all outputs, then the next: many accumulators in flight, inputs live from tap to tap
    inside    an output's taps, then the next output: a row of outputs needs few inputs at a time
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.arguments import window_extent
from tvmconv.compute import depthwise_conv2d
from tvmconv.compute.geometry import Geometry, geometry
from tvmconv.hardware import Decisions, Function, Machine
from tvmconv.lowering import SPLIT_AT, prim_func, with_interface
from tvmconv.nests import start, tiles
from tvmconv.spec import ConvSpec

INNER, MIDDLE, OUTER = "channels_inner", "channels_middle", "channels_outer"
OUTSIDE, INSIDE = "outside", "inside"

# Unrolled multiply-adds of one tile: beyond this the nine copies outgrow the instruction cache
# (400 FMAs of 6 to 10 bytes with their loads are about 4 KiB a copy, the cache has 32).
MOST_UNROLLED = 400


def apply(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """Schedule `compute.depthwise_conv2d.direct`; raises nothing for legal decisions."""
    return nest(spec, prim_func(depthwise_conv2d.direct(spec)), decisions)


def apply_from_bias(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """As `apply`, with sums that start at the bias."""
    func = prim_func(depthwise_conv2d.direct(spec))
    if spec.bias:
        func = start.at_bias(func, lambda n, h, w, q, k: k * spec.multiplier + q)
    return nest(spec, func, decisions)


def nest(spec: ConvSpec, func: Any, decisions: Decisions) -> Function:
    """Schedule a function of stages ``padded``, ``conv`` and ``out``."""
    g, multiplier = geometry(spec), spec.multiplier
    loops = Loops(tvm.IRModule({"main": func}))
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
    unroll_taps = unrolled * g.kernel_height * g.kernel_width <= MOST_UNROLLED
    _schedule_tile(loops, conv, unroll_taps, decisions.get("taps") == INSIDE)
    for loop in (r, c, q):
        loops.unroll(loop)
    loops.vectorize(v)
    rows, columns = _split_points(g, decisions)
    loops.annotate(row_tiles, SPLIT_AT, rows)
    loops.annotate(column_tiles, SPLIT_AT, columns)
    if g.in_channels % int(decisions["channels"]):
        loops.annotate(channel_tiles, SPLIT_AT, [g.in_channels // int(decisions["channels"])])
    main = with_interface(loops.mod["main"], {}, aligned=frozenset({"filter"}))
    pack = with_interface(prim_func(depthwise_conv2d.pack(spec)), {}, aligned=frozenset({"packed"}))
    return Function(main, pack, depthwise_conv2d.packed_filter_shape(spec))


def _inline_padding(loops: Loops, g: Geometry) -> None:
    if g.needs_padding:
        loops.compute_inline(loops.get_sblock("padded"))


def _transpose_outside(loops: Loops, out: Any) -> None:
    """NCHW: two passes of their own bring the data to NHWC and the result back."""
    for block in (loops.get_sblock("padded"), out):
        first, second, _, _ = loops.get_loops(block)
        loops.parallel(loops.fuse(first, second))


def _schedule_tile(loops: Loops, tile: Any, unroll_taps: bool, taps_inside: bool) -> None:
    """Taps and the outputs of the tile, in the order of "taps", everything unrolled, channels one vector."""
    n, h, w, q, k, kh, kw = loops.get_loops(tile)[-7:]
    if taps_inside:
        loops.reorder(n, h, w, q, kh, kw, k)
    else:
        loops.reorder(kh, kw, n, h, w, q, k)
    for loop in (n, h, w, q, *((kh, kw) if unroll_taps else ())):
        loops.unroll(loop)
    loops.vectorize(k)
    init = loops.decompose_reduction(tile, kh)
    *zeroed, lanes = loops.get_loops(init)[-5:]
    for loop in zeroed:
        loops.unroll(loop)
    loops.vectorize(lanes)


def _split_points(g: Geometry, decisions: Decisions) -> tuple[list[int], list[int]]:
    """Tile numbers where the interior begins and ends, for rows and for columns."""
    rows, columns = int(decisions["rows"]), int(decisions["columns"])
    high = window_extent(g.kernel_height, g.dilations[0])
    wide = window_extent(g.kernel_width, g.dilations[1])
    return (
        tiles.interior(g.out_height, rows, g.in_height, g.pads[0], g.strides[0], high),
        tiles.interior(g.out_width, columns, g.in_width, g.pads[1], g.strides[1], wide),
    )
