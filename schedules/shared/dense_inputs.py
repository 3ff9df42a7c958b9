"""A dense convolution's register tile whose vectors run over input channels, for few output channels.

A step loads ``lanes`` input channels of a pixel and as many weights of an output channel, and multiplies lane
by lane: every lane has its own sum, and a tile's end adds them up. No lane idles however few the outputs are.
The columns of the kernel are the innermost loop, so that neighbouring pixels share what they load:

    registers    pixels * channels sums, the weights of a column of taps, the data that is shared
    loads/FMA    (pixels + kw - 1 + channels * kw) / (pixels * channels * kw)
    tile's end   log2(lanes) shuffles and additions for an output
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.compute import conv2d_inputs
from tvmconv.compute.geometry import geometry, round_up
from tvmconv.hardware import Function, Machine, Schedule
from tvmconv.lowering.interface import function, prim_func
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import dense as tiled
from tvmconv.schedules.shared import dense_space, dense_stages, tile_costs
from tvmconv.schedules.shared.dense import DenseDecisions

_MOST_CHANNELS = 8  # of a tile
_MOST_COLUMNS = 16  # of a kernel, to be unrolled
_MOST_STEPS = 8  # columns x steps of the reduction, likewise


def schedule(name: str, direct: dense_space.Instructions, each: float) -> Schedule:
    """Return the schedule under a pack's name.

    It is preferred where it is estimated to be faster than ``direct``. ``each`` is the share of a cycle that
    an instruction costs which is no multiply-add, where ports suffice.
    """
    by = dense_space.Instructions(
        blocks=lambda spec, _machine: dense_space.divisors(spec.out_channels, _MOST_CHANNELS),
        lengths=_lengths,
        unrolls=_unrolls,
        pads=lambda spec, _machine: dense_stages.pads(spec),
        fits=_fits,
        roomy=_roomy,
        cycles=partial(_cycles, each),
        unrolled=_unrolled,
        better=_better,
        apply=apply,
    )
    return dense_space.schedule(name, by, accepts, partial(dense_space.is_cheaper, by, direct))


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """float32, NHWC, one group, input channels in whole or half vectors."""
    return (
        dense_space.accepts(spec, machine)
        and spec.dtype == "float32"
        and spec.data_format == "NHWC"
        and spec.groups == 1
        and _lanes(spec, machine) >= max(4, machine.cpu.lanes("float32") // 2)
    )


def _lanes(spec: ConvSpec, machine: Machine) -> int:
    """The most, a power of two, that divide the input channels."""
    even = spec.in_channels & -spec.in_channels
    return int(min(machine.cpu.lanes("float32"), even))


def _lengths(spec: ConvSpec, machine: Machine) -> list[int]:
    return tile_costs.pixel_tiles(geometry(spec).out_width, machine.cpu.vector_registers - 2)


def _columns(spec: ConvSpec) -> int:
    """Columns of the kernel that are unrolled inside a step."""
    return spec.kernel_width if spec.kernel_width <= _MOST_COLUMNS else 1


def _unrolls(spec: ConvSpec, machine: Machine) -> list[int]:
    steps = spec.in_channels // _lanes(spec, machine)
    usable = (u for u in (1, 2, 4) if steps % u == 0)
    return [u for u in usable if u == 1 or u * _columns(spec) <= _MOST_STEPS]


def _fits(_spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> bool:
    registers = tile.pixels * tile.channels + tile.channels + 1
    return tile.pixels == 1 or registers <= machine.cpu.vector_registers


def _roomy(_spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> bool:
    """Whether three eighths of the registers are left to data and weights.

    3x3, 64x64x64 -> 1 on AVX2: 10 pixels 39 us, 11 48; -> 2: 5 75 us, 6 83; -> 3: 3 123 us, 4 175; on AVX-512
    -> 3: 7 60 us, 8 86 (Zen 5, busy, 2026-11).
    """
    sums = tile.pixels * tile.channels
    return tile.pixels == 1 or 8 * sums <= 5 * machine.cpu.vector_registers


def _unrolled(spec: ConvSpec, _machine: Machine, tile: DenseDecisions) -> int:
    columns = spec.kernel_width if tile.pad == "none" else _columns(spec)
    rows = spec.kernel_height if tile.pad == "none" else 1
    return tile.pixels * tile.channels * tile.unroll * columns * rows


def _cycles(each: float, spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> float:
    """Estimate cycles per useful multiply-add of whole vectors: steps, and the share of a tile's end.

    A step's are the largest of ports, loads and latency. An output's sum takes a shuffle and an addition for
    every halving.
    """
    g, lanes, columns = geometry(spec), _lanes(spec, machine), _columns(spec)
    sums = tile.pixels * tile.channels
    # Neighbouring windows overlap.
    step, dilation = spec.strides[1], spec.dilations[1]
    data = {step * w + dilation * k for w in range(tile.pixels) for k in range(columns)}
    loads = len(data) + tile.channels * columns
    fmas = sums * columns
    cycles = max(
        fmas / machine.cpu.fma_ports,
        loads / machine.cpu.load_ports,
        columns * machine.cpu.fma_latency,
    )
    cycles += each * loads + 0.5
    ends = sums * 2 * (lanes.bit_length() - 1) / machine.cpu.fma_ports
    steps = spec.reduction_length / lanes / columns
    useful = (3 + g.out_width / round_up(g.out_width, tile.pixels)) / 4
    useful *= lanes / machine.cpu.lanes("float32")
    return float((cycles + ends / steps) / fmas / useful)


def _better(spec: ConvSpec, _machine: Machine, tile: DenseDecisions) -> list[DenseDecisions]:
    """The tile without a copy of the data, or with one of a band at a time."""
    pads, g = dense_stages.pads(spec), geometry(spec)
    found = [replace(tile, pad="none")] if "none" in pads and g.batch == 1 else []
    if "rows" in pads:
        *_, rows = tile_costs.row_bands(g.out_height)[:2]
        found.append(replace(tile, pad="rows", rows=rows))
    return found


def apply(spec: ConvSpec, machine: Machine, decisions: DenseDecisions) -> Function:
    """Schedule `compute.conv2d_inputs.direct`; raises nothing for legal decisions."""
    block, lanes, g = decisions.channels, _lanes(spec, machine), geometry(spec)
    loops = Loops(tvm.IRModule({"main": prim_func(conv2d_inputs.direct(spec, block, lanes))}))
    tile = loops.get_sblock("conv")
    halves = [loops.get_sblock(f"half{left}") for left in conv2d_inputs.halvings(lanes)]
    inlined = decisions.pad == "none"
    if inlined:
        loops.compute_inline(loops.get_sblock("padded"))
    columns_inside = inlined or _columns(spec) > 1

    def reduction(_job: Any) -> Any:
        return _schedule_tile(loops, tile, halves, decisions.unroll, columns_inside, inlined)

    copied = dense_stages.is_copied(spec, g, widen=False) and not inlined
    tiled.schedule(loops, tile, spec, g, decisions, copied, reduction, between=halves[::-1])
    packed = conv2d_inputs.packed_filter_shape(spec, block, lanes)
    pack = prim_func(conv2d_inputs.pack(spec, block, lanes))
    return function(spec, loops.mod["main"], pack, packed)


def _schedule_tile(
    loops: Loops,
    tile: Any,
    halves: list[Any],
    unroll: int,
    columns_inside: bool,
    unroll_rows: bool,
) -> Any:
    """Reduction outside, the whole tile unrolled inside it, its lanes one vector; then the halves.

    Returns the innermost loop of the reduction that is not unrolled.
    """
    n, h, w, o, lane, kh, kw, ci = loops.get_loops(tile)[-8:]
    ci_outer, ci_inner = loops.split(ci, [None, unroll])
    steps = (ci_outer, ci_inner, kw) if columns_inside else (kw, ci_outer, ci_inner)
    loops.reorder(kh, *steps, n, h, w, o, lane)
    for loop in (ci_inner, n, h, w, o):
        loops.unroll(loop)
    if unroll_rows:
        loops.unroll(kh)  # every tap by its number, so that those in the padding vanish
    if columns_inside:
        loops.unroll(kw)
    loops.vectorize(lane)
    _vectorize(loops, loops.decompose_reduction(tile, kh))
    for half in halves:
        loops.set_scope(half, 0, "local")
        _vectorize(loops, half)
    return ci_outer


def _vectorize(loops: Loops, block: Any) -> None:
    *outer, lanes = loops.get_loops(block)[-5:]
    for loop in outer:
        loops.unroll(loop)
    loops.vectorize(lanes)
