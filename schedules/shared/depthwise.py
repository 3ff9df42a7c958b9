"""The loop nest of a depthwise convolution on any CPU: rows x columns of outputs, a vector of channels.

"taps" is which way the unrolled multiply-adds of a tile follow each other:

    outside   a tap for all outputs, then the next: many accumulators in flight, inputs live from tap to tap
    inside    an output's taps, then the next output: a row of outputs needs few inputs at a time
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.compute import depthwise_conv2d
from tvmconv.compute.geometry import Geometry, geometry
from tvmconv.hardware import Function
from tvmconv.lowering.dot_calls import DOT
from tvmconv.lowering.interface import SPLIT_AT, function, prim_func
from tvmconv.problem.arguments import window_extent
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import bias_start, code_size, dense_stages, tile_costs

# Outputs of a tile whose taps are unrolled, at least.
_FEWEST = 6
INNER, MIDDLE, OUTER = "channels_inner", "channels_middle", "channels_outer"
OUTSIDE, INSIDE = "outside", "inside"


@dataclass(frozen=True)
class DepthwiseDecisions:
    """What is decided of a depthwise convolution.

    Attributes:
        channels, rows, columns: of a register tile.
        order: of the loops over tiles.
        taps: order of a tile's multiply-adds.
    """

    channels: int
    rows: int
    columns: int
    order: str = MIDDLE
    taps: str = OUTSIDE


def nest(
    spec: ConvSpec,
    decisions: DepthwiseDecisions,
    stored: str,
    multiply_add: tuple[str, str] | None = None,
    lanes: int = 0,
    from_bias: bool = False,
) -> Function:
    """Schedule `compute.depthwise_conv2d.direct` of a filter ``stored`` so; legal decisions raise nothing.

    ``multiply_add`` is the name and the definition of the function that adds a product to each of
    ``lanes`` accumulators, where the machine has one. Sums start at zero or at the bias.
    """
    func = prim_func(depthwise_conv2d.direct(spec, stored))
    if from_bias and spec.bias:
        func = bias_start.at_bias(func, lambda n, h, w, q, k: k * spec.multiplier + q)
    g, multiplier = geometry(spec), spec.multiplier
    loops = Loops(tvm.IRModule({"main": func}))
    conv, out = loops.get_sblock("conv"), loops.get_sblock("out")
    looped, copied = loops_over_taps(spec, decisions.channels), False
    if g.channels_last:
        copied = looped and g.needs_padding
        if g.needs_padding and not copied:
            loops.compute_inline(loops.get_sblock("padded"))
        n, h, w, o = loops.get_loops(out)
        channel_tiles, v, q = loops.split(o, [None, decisions.channels, multiplier])
        store, inner = out, [v, q]
    else:
        _transpose_outside(loops, out)
        store = loops.cache_write(conv, 0, "local")
        n, h, w, q, k = loops.get_loops(store)
        channel_tiles, v = loops.split(k, [None, decisions.channels])
        inner = [q, v]
    row_tiles, r = loops.split(h, [None, decisions.rows])
    column_tiles, c = loops.split(w, [None, decisions.columns])
    nest = {
        INNER: [n, row_tiles, column_tiles, channel_tiles],
        MIDDLE: [n, row_tiles, channel_tiles, column_tiles],
        OUTER: [n, channel_tiles, row_tiles, column_tiles],
    }[decisions.order]
    loops.reorder(*nest, r, c, *inner)
    loops.compute_at(conv, nest[-1], preserve_unit_loops=True)
    if g.channels_last:
        loops.set_scope(conv, 0, "local")
    # The second loop and not the fused first two: a fused tile number has no simple border test.
    # Before the reduction is decomposed: afterwards TVM cannot prove it safe.
    if copied:
        dense_stages.schedule_padding(loops, g, at=None)
    loops.parallel(nest[1])
    inside = decisions.taps == INSIDE and not looped
    taps = _order_taps(loops, conv, not looped and unrolls_taps(spec, decisions), inside)
    if multiply_add is None:
        _vectorize(loops, conv, taps)
    else:
        _call(loops, conv, taps, lanes, multiply_add[0])
    for loop in (r, c, q):
        loops.unroll(loop)
    loops.vectorize(v)
    rows, columns = _split_points(g, decisions, copied)
    loops.annotate(row_tiles, SPLIT_AT, rows)
    loops.annotate(column_tiles, SPLIT_AT, columns)
    if g.in_channels % decisions.channels:
        loops.annotate(channel_tiles, SPLIT_AT, [g.in_channels // decisions.channels])
    packed = depthwise_conv2d.packed_filter_shape(spec)
    definition = None if multiply_add is None else multiply_add[1]
    pack = prim_func(depthwise_conv2d.pack(spec, stored))
    return function(spec, loops.mod["main"], pack, packed, llvm_ir=definition)


def unrolls_taps(spec: ConvSpec, tile: DepthwiseDecisions) -> bool:
    """Whether the code of a tile is short enough with all its taps.

    A ragged vector is one of each power of two, and a ragged last tile is code of its own.
    """
    outputs, taps = (
        tile.rows * tile.columns * spec.multiplier,
        spec.kernel_height * spec.kernel_width,
    )
    whole = tile.channels.bit_count()
    vectors = whole + (spec.in_channels % tile.channels).bit_count()
    most = code_size.MOST_DEPTHWISE if whole == 1 else code_size.MOST_RAGGED
    return bool(code_size.unrolled(outputs, taps, vectors) <= most)


def loops_over_taps(spec: ConvSpec, channels: int) -> bool:
    """Whether taps stay loops, over a padded copy of the image, because too few outputs fit straight code.

    A tile of one or two outputs waits for each sum, and tests each tap at the border, which is everywhere.
    """
    return not unrolls_taps(spec, DepthwiseDecisions(channels, 1, _FEWEST))


def _transpose_outside(loops: Loops, out: Any) -> None:
    """NCHW: two passes of their own bring the data to NHWC and the result back."""
    for block in (loops.get_sblock("padded"), out):
        first, second, _, _ = loops.get_loops(block)
        loops.parallel(loops.fuse(first, second))


def _order_taps(loops: Loops, tile: Any, unroll_taps: bool, taps_inside: bool) -> Any:
    """Taps and the outputs of the tile, in the order of "taps", everything unrolled.

    Returns the first loop over taps.
    """
    n, h, w, q, k, kh, kw = loops.get_loops(tile)[-7:]
    if taps_inside:
        loops.reorder(n, h, w, q, kh, kw, k)
    else:
        loops.reorder(kh, kw, n, h, w, q, k)
    for loop in (n, h, w, q, *((kh, kw) if unroll_taps else ())):
        loops.unroll(loop)
    return kh


def _vectorize(loops: Loops, tile: Any, taps: Any) -> None:
    """Channels are one vector."""
    loops.vectorize(loops.get_loops(tile)[-1])
    *zeroed, lanes = loops.get_loops(loops.decompose_reduction(tile, taps))[-5:]
    for loop in zeroed:
        loops.unroll(loop)
    loops.vectorize(lanes)


def _call(loops: Loops, tile: Any, taps: Any, lanes: int, name: str) -> None:
    """Channels are vectors of so many lanes, for each of which a function is called."""
    vectors, lane = loops.split(loops.get_loops(tile)[-1], [None, lanes])
    loops.unroll(vectors)
    *zeroed, zeros = loops.get_loops(loops.decompose_reduction(tile, taps))[-6:]
    for loop in zeroed:
        loops.unroll(loop)
    loops.vectorize(zeros)
    loops.annotate(lane, DOT, name)  # not before: the zeros would inherit it


def _split_points(
    g: Geometry, decisions: DepthwiseDecisions, copied: bool
) -> tuple[list[int], list[int]]:
    """Tile numbers where the interior begins and ends, for rows and for columns; a copy has no border."""
    rows, columns = decisions.rows, decisions.columns
    if copied:
        return [g.out_height // rows], [g.out_width // columns]
    high = window_extent(g.kernel_height, g.dilations[0])
    wide = window_extent(g.kernel_width, g.dilations[1])
    return (
        tile_costs.interior(g.out_height, rows, g.in_height, g.pads[0], g.strides[0], high),
        tile_costs.interior(g.out_width, columns, g.in_width, g.pads[1], g.strides[1], wide),
    )
