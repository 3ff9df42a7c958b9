"""A dense convolution's register tile whose vectors run over columns: few channels in and out.

A tile is some vectors of a row's pixels x output channels. A tap of an input channel loads the pixels'
vectors from where they lie, one element further for the next tap, and for each channel a weight:

    registers    vectors * channels sums + channels weights + 1 of data
    loads/FMA    (vectors + channels) / (vectors * channels); a vector that crosses a line counts twice

    for job (image, band of rows)          parallel
      copy the band's rows in columns
      for row
        for tile of pixels, of channels
          for kh, ci, kw: multiply, add    columns stay in the first-level cache for all taps of a row
        epilogue, store

All tiles are whole: what a row computes beyond its end is not stored, and there is no border.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.compute import conv2d, conv2d_columns
from tvmconv.compute.geometry import geometry, is_pointwise, round_up
from tvmconv.hardware import Function, Machine, Schedule
from tvmconv.lowering.interface import SPLIT_AT, function, prim_func
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import dense_space, tile_costs
from tvmconv.schedules.shared.dense import DenseDecisions

_MOST_CHANNELS = 8  # of a tile
_MOST_VECTORS = 16  # of a tile's pixels
# Cycles to copy a number of data, and to store one of the output (3x3, 3 -> 3 at 128x128; Zen 5, 2026-11).
_COPY = 1


def schedule(name: str, direct: dense_space.Instructions, each: float) -> Schedule:
    """Return the schedule under a pack's name; arguments as `dense_inputs.schedule`."""
    by = dense_space.Instructions(
        blocks=lambda spec, _machine: dense_space.divisors(spec.out_channels, _MOST_CHANNELS),
        lengths=_lengths,
        pads=lambda spec, _machine: ("image", "rows") if spec.out_height > 1 else ("image",),
        fits=_fits,
        roomy=_roomy,
        cycles=partial(_cycles, each),
        unrolled=lambda _spec, machine, tile: _vectors(machine, tile) * tile.channels,
        jobs=lambda spec, tile: spec.batch * spec.out_height // tile.rows,
        better=_better,
        apply=apply,
    )
    return dense_space.schedule(name, by, accepts, partial(dense_space.is_cheaper, by, direct))


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """float32, NHWC, one group, fewer channels in and out than a vector has lanes; no 1x1."""
    lanes = machine.cpu.lanes("float32")
    return (
        dense_space.accepts(spec, machine)
        and spec.dtype == "float32"
        and spec.data_format == "NHWC"
        and spec.groups == 1
        and max(spec.in_channels, spec.out_channels) < lanes
        and not is_pointwise(spec)
    )


def _lengths(spec: ConvSpec, machine: Machine) -> list[int]:
    lanes = machine.cpu.lanes("float32")
    most = min(_MOST_VECTORS, -(-spec.out_width // lanes))
    return [count * lanes for count in range(most, 0, -1)]


def _vectors(machine: Machine, tile: DenseDecisions) -> int:
    return tile.pixels // machine.cpu.lanes("float32")


def _fits(_spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> bool:
    vectors = _vectors(machine, tile)
    return vectors == 1 or (vectors + 1) * tile.channels + 1 <= machine.cpu.vector_registers


def _roomy(_spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> bool:
    """Whether three eighths of the registers are left to data and weights.

    With 12 sums of 16 registers, on AVX2, and 24 of 32, on ARM, LLVM keeps some on the stack (2026-11).
    """
    sums = _vectors(machine, tile) * tile.channels
    return (
        tile.pixels == machine.cpu.lanes("float32") or 8 * sums <= 5 * machine.cpu.vector_registers
    )


def _cycles(each: float, spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> float:
    """Estimate cycles per useful multiply-add of whole vectors: taps, and the share of both copies."""
    lanes, vectors = machine.cpu.lanes("float32"), _vectors(machine, tile)
    fmas, loads = vectors * tile.channels, vectors + tile.channels
    crossing = vectors * machine.cpu.vector_bytes / 64
    cycles = max(
        fmas / machine.cpu.fma_ports,
        (loads + crossing) / machine.cpu.load_ports,
        machine.cpu.fma_latency,
    )
    useful = spec.out_width / round_up(spec.out_width, tile.pixels)
    stepped = spec.strides[0] * spec.strides[1]
    copies = _COPY * (spec.in_channels * stepped + spec.out_channels)
    of_pixel = spec.reduction_length * spec.out_channels / lanes
    return float((cycles + each * loads + 0.5) / fmas / useful + copies / of_pixel)


def _better(spec: ConvSpec, _machine: Machine, tile: DenseDecisions) -> list[DenseDecisions]:
    """The tile with a copy of a band of rows at a time."""
    *_, rows = tile_costs.row_bands(spec.out_height)[:2]
    return [replace(tile, pad="rows", rows=rows)]


def apply(spec: ConvSpec, machine: Machine, decisions: DenseDecisions) -> Function:
    """Schedule `compute.conv2d_columns.direct`; raises nothing for legal decisions."""
    block, lanes = decisions.channels, machine.cpu.lanes("float32")
    tensors = conv2d_columns.direct(spec, block, decisions.pixels)
    loops = Loops(tvm.IRModule({"main": prim_func(tensors)}))
    _schedule(loops, spec, decisions, lanes)
    packed = conv2d.packed_filter_shape(spec, block)
    return function(spec, loops.mod["main"], prim_func(conv2d.pack(spec, block)), packed)


def _schedule(loops: Loops, spec: ConvSpec, decisions: DenseDecisions, lanes: int) -> None:
    tile, out = loops.get_sblock("conv"), loops.get_sblock("out")
    store = loops.cache_write(tile, 0, "local")
    n, h, o, x = loops.get_loops(store)
    bands, rows = loops.split(h, [None, decisions.rows])
    channel_tiles, v = loops.split(o, [None, decisions.channels])
    pixel_tiles, vectors, lane = loops.split(x, [None, decisions.pixels // lanes, lanes])
    tiles = (channel_tiles, pixel_tiles) if decisions.by_weights else (pixel_tiles, channel_tiles)
    loops.reorder(n, bands, rows, *tiles, v, vectors, lane)
    loops.compute_at(tile, tiles[-1], preserve_unit_loops=True)
    loops.reverse_compute_at(out, rows, preserve_unit_loops=True)
    banded = decisions.pad == "rows"
    job = loops.fuse(n, bands) if banded else loops.fuse(n, bands, rows)
    _schedule_copy(loops, spec, job if banded else None)
    loops.parallel(job)  # before the reduction is decomposed: afterwards TVM cannot prove it safe
    *_, to, tx, kh, ci, kw = loops.get_loops(tile)
    group, inner = loops.split(tx, [None, lanes])
    loops.reorder(kh, ci, kw, to, group, inner)
    for loop in (to, group, v, vectors):
        loops.unroll(loop)
    loops.vectorize(inner)
    loops.vectorize(lane)
    *_, zeroed, zeroed_group, zeroed_lane = loops.get_loops(loops.decompose_reduction(tile, kh))
    loops.unroll(zeroed)
    loops.unroll(zeroed_group)
    loops.vectorize(zeroed_lane)


def _schedule_copy(loops: Loops, spec: ConvSpec, at: Any | None) -> None:
    """Rows of columns; without a stride the loop over them is free of tests inside the image."""
    columns = loops.get_sblock("columns")
    if at is not None:
        loops.compute_at(columns, at, preserve_unit_loops=True)
    *outer, x = loops.get_loops(columns)
    if spec.strides[1] == 1:
        left = geometry(spec).pads[1]
        loops.annotate(x, SPLIT_AT, [left, left + spec.in_width])
    if at is None:
        loops.parallel(loops.fuse(*outer[:2]))
