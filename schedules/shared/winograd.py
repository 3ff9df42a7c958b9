"""The loop nest of Winograd's convolution on any CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.compute import conv2d_winograd
from tvmconv.compute.geometry import Geometry, geometry
from tvmconv.hardware import Decisions, Function, Machine
from tvmconv.lowering.interface import SPLIT_AT, aligned_arrays, prim_func, with_interface
from tvmconv.lowering.prefetching import PANEL, TILES
from tvmconv.problem.rules import ITEM_BYTES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import tile_costs
from tvmconv.schedules.shared.typed import read

DATA_OUTER, FILTER_OUTER = "data_outer", "filter_outer"


@dataclass(frozen=True)
class WinogradDecisions:
    """What is decided of Winograd's convolution.

    Attributes:
        outputs: of a tile, in each direction.
        channels, pixels: output channels and tiles of a register tile.
        band: rows of tiles at a time.
        order: what is outermost.
        unroll: input channels that are unrolled.
        columns: columns of tiles at a time, 0 for whole rows.
    """

    outputs: int
    channels: int
    pixels: int
    band: int
    order: str
    unroll: int
    columns: int = 0

    @property
    def by_data(self) -> bool:
        """Whether bands of data are the outer loop, and blocks of the filter the inner."""
        return self.order == DATA_OUTER


def filter_bytes(spec: ConvSpec, taps: int) -> int:
    """Bytes of a filter with so many taps."""
    return taps * spec.in_channels * spec.out_channels * ITEM_BYTES[spec.dtype]


def apply(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """Schedule `compute.conv2d_winograd.winograd`; raises nothing for legal decisions."""
    typed = read(WinogradDecisions, decisions)
    outputs, block = typed.outputs, typed.channels
    tensors = conv2d_winograd.winograd(spec, outputs, block, typed.band, typed.columns)
    loops = Loops(tvm.IRModule({"main": prim_func(tensors)}))
    _schedule(loops, spec, machine, typed)
    return Function(
        with_interface(loops.mod["main"], {}, aligned_arrays(spec)),
        _pack(spec, outputs, block),
        conv2d_winograd.packed_filter_shape(spec, outputs, block),
    )


def _pack(spec: ConvSpec, outputs: int, block: int) -> Any:
    loops = Loops(tvm.IRModule({"main": prim_func(conv2d_winograd.pack(spec, outputs, block))}))
    half, packed = loops.get_sblock("half"), loops.get_sblock("packed")
    i, j, b, q, v = loops.get_loops(packed)
    loops.reorder(b, q, i, j, v)
    loops.compute_at(half, q, preserve_unit_loops=True)
    loops.set_scope(half, 0, "local")
    a, y, _, lane = loops.get_loops(half)[-4:]
    loops.parallel(b)
    for loop in (i, j, a, y):
        loops.unroll(loop)
    for loop in (v, lane):
        loops.vectorize(loop)
    return with_interface(loops.mod["main"], {}, aligned=frozenset({"packed"}))


def _schedule(loops: Loops, spec: ConvSpec, machine: Machine, decisions: WinogradDecisions) -> None:
    outputs, block, band = decisions.outputs, decisions.channels, decisions.band
    g, cut = geometry(spec), conv2d_winograd.tiling(spec, outputs, band, decisions.columns)
    lanes, by_data = machine.cpu.lanes("float32"), decisions.by_data
    out, product = loops.get_sblock("out"), loops.get_sblock("product")
    columns = loops.get_sblock("columns")
    store = loops.cache_write(product, 0, "local")

    n, h, w, o = loops.get_loops(out)
    b, y, k = loops.split(h, [None, band, outputs])
    e, x, c = loops.split(w, [None, cut.columns, outputs])
    width = lanes if block % lanes == 0 else min(block, lanes // 2)
    ob, oi, v = loops.split(o, [None, block // width, width])
    outer = [n, b, e, ob] if by_data else [n, ob, b, e]
    loops.reorder(*outer, y, x, oi, k, c, v)
    loops.compute_at(columns, oi, preserve_unit_loops=True)
    loops.compute_at(store, outer[3], preserve_unit_loops=True)
    transformed, rows = loops.get_sblock("transformed"), loops.get_sblock("rows")
    job = loops.fuse(*outer[: 3 if by_data else 2])
    strip = _schedule_strips(loops, store, product, cut, decisions.pixels)
    if by_data:
        loops.compute_at(transformed, job, preserve_unit_loops=True)
    loops.parallel(job)  # before the reduction is decomposed: afterwards TVM cannot prove it safe
    unroll = decisions.unroll
    reduction = _schedule_tile(loops, product, unroll)
    far = tile_costs.is_far(filter_bytes(spec, (outputs + conv2d_winograd.TAPS - 1) ** 2), machine)
    if far and not by_data:
        panel = g.in_channels * block
        loops.annotate(strip, TILES, [1])
        loops.annotate(reduction, PANEL, [panel, panel * (g.out_channels // block), unroll * block])
    _schedule_data(loops, transformed, rows, g, cut, outputs, lanes, by_data)
    loops.set_scope(columns, 0, "local")
    *_, ck, cj, cv = loops.get_loops(columns)
    for loop in (k, c, ck, cj):
        loops.unroll(loop)
    loops.vectorize(v)
    loops.vectorize(cv)
    # With several strips only a strip's last tile can be ragged.
    loops.annotate(x, SPLIT_AT, [g.out_width // outputs if cut.parts == 1 else cut.columns - 1])
    if cut.bands == 1:
        loops.annotate(y, SPLIT_AT, [g.out_height // outputs])


def _schedule_strips(loops: Loops, store: Any, product: Any, cut: Any, pixels: int) -> Any:
    """For every product of the transform, tiles in strips as long as the registers hold."""
    p, i, j, o = loops.get_loops(store)[-4:]
    strip, m = loops.split(p, [None, pixels])
    loops.reorder(i, j, strip, m, o)
    loops.compute_at(product, strip, preserve_unit_loops=True)
    loops.unroll(m)
    loops.vectorize(o)
    loops.annotate(strip, SPLIT_AT, [cut.strip // pixels])
    return strip


def _schedule_tile(loops: Loops, product: Any, unroll: int) -> Any:
    """Reduction outside, returned; the whole register tile unrolled inside it, its channels one vector."""
    *tile, ci = loops.get_loops(product)[-5:]
    ci_outer, ci_inner = loops.split(ci, [None, unroll])
    loops.reorder(ci_outer, ci_inner, *tile)
    for loop in (ci_inner, *tile[:-1]):
        loops.unroll(loop)
    loops.vectorize(tile[-1])
    init = loops.decompose_reduction(product, ci_outer)
    *zeroed, vector = loops.get_loops(init)[-4:]
    for loop in zeroed:
        loops.unroll(loop)
    loops.vectorize(vector)
    return ci_outer


def _schedule_data(
    loops: Loops,
    transformed: Any,
    rows: Any,
    g: Geometry,
    cut: Any,
    outputs: int,
    lanes: int,
    by_data: bool,
) -> None:
    *outer, i, j, p, q = loops.get_loops(transformed)
    y, x = loops.split(p, [None, cut.columns])
    width = lanes if g.in_channels % lanes == 0 else max(lanes // 2, 1)
    qo, v = loops.split(q, [None, width])
    loops.reorder(y, x, qo, i, j, v)
    loops.compute_at(rows, qo, preserve_unit_loops=True)
    loops.set_scope(rows, 0, "local")
    *_, r, s, lane = loops.get_loops(rows)
    for loop in (i, j, r, s):
        loops.unroll(loop)
    loops.vectorize(v)
    loops.vectorize(lane)
    inner = tile_costs.interior(g.out_width, outputs, g.in_width, g.pads[1], 1, 3)
    if cut.parts > 1:  # tiles that are inside in every strip
        inner = [inner[0], max(inner[0], cut.columns - (cut.wide - inner[1]))]
    loops.annotate(x, SPLIT_AT, inner)
    if not by_data:
        loops.parallel(loops.fuse(*outer, y))
