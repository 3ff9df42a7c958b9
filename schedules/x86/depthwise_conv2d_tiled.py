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

from tvmconv.hardware import Function, Machine
from tvmconv.lowering.prefetching import LINE_BYTES
from tvmconv.problem.rules import ITEM_BYTES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import depthwise_space, tile_costs
from tvmconv.schedules.shared.depthwise import (
    INNER,
    MIDDLE,
    OUTER,
    DepthwiseDecisions,
    loops_over_taps,
    nest,
)
from tvmconv.schedules.x86 import dot_code, machines

# Times the second level.
_LARGE = 6


def _widths(spec: ConvSpec, machine: Machine) -> list[int]:
    lanes = machine.cpu.lanes(spec.accumulator_dtype)
    # A function that adds products takes whole vectors.
    ragged = dot_code.multiply_add(spec.dtype, machine, lanes) is None
    return list(depthwise_space.widths(spec.in_channels, lanes, ragged))


def _orders(spec: ConvSpec, machine: Machine) -> dict[str, str]:
    """Where data and output fit the second-level cache, a row of tiles keeps its weights in registers.

    Beyond, reading memory in its own order is worth more (Sapphire Rapids, 2026-11, 112x112x96 at stride
    2: 218 us against 296; 56x56x144: 128 against 163), but not on AMD's; see `machines`.
    """
    if _is_large(spec, machine) and machine.name in machines.STRIDED:
        return {"order": MIDDLE}
    # Of 5x5 taps registers hold too few for a longer loop to save loads.
    few_taps = 3 * _taps(spec) <= machine.cpu.vector_registers
    near = spec.bytes <= machine.cpu.l2_bytes
    # Channels of half lines share a line with their neighbours, which comes twice: 128x128x24 takes 38 us in
    # memory's order, 52 to 60 so (Zen 5, 2026-11).
    lines = spec.in_channels * ITEM_BYTES[spec.dtype] % LINE_BYTES == 0
    if few_taps and machine.name in machines.CHANNELS_OUTER and (near or lines):
        return {"order": OUTER}
    return {"order": MIDDLE if near else INNER}


def _is_large(spec: ConvSpec, machine: Machine) -> bool:
    """Whether data and output are far beyond the second-level cache."""
    return spec.bytes > _LARGE * machine.cpu.l2_bytes


def _taps(spec: ConvSpec) -> int:
    return spec.kernel_height * spec.kernel_width * spec.multiplier


def _fits(spec: ConvSpec, machine: Machine, tile: DepthwiseDecisions) -> bool:
    vectors = tile_costs.vectors(tile.channels, machine, spec.accumulator_dtype)
    return depthwise_space.fits(spec, machine, tile, vectors)


def _cycles(spec: ConvSpec, machine: Machine, tile: DepthwiseDecisions) -> float:
    """Estimate cycles per useful vector multiply-add of a tile.

    Weights stay in registers if
    accumulators, weights and one column of inputs take at most 25 of 32: beyond that LLVM 22 spills
    (3x3, stride 1, stores: none at 2 x 4 and 2 x 6, 7 at 3 x 4, 46 at 2 x 7, 1250 at 4 x 7; counted in
    the assembly, 2026-11). A spilled register costs a store and a few loads in every tile.
    """
    if loops_over_taps(spec, tile.channels):
        loads = depthwise_space.looped_loads(spec, tile)
        return float(depthwise_space.cycles_per_fma(spec, machine, tile, loads))
    taps = spec.kernel_height * spec.kernel_width
    accumulators = tile.rows * tile.columns * spec.multiplier
    window_rows, inputs = depthwise_space.window(spec, tile)
    room = machine.cpu.vector_registers * 25 // 32
    live = accumulators + min(window_rows, tile.rows * spec.kernel_height)
    resident = live + taps * spec.multiplier <= room
    excess = max(0, live + (taps * spec.multiplier if taps <= room // 2 else 2) - room)
    loads = inputs + (0 if resident else taps * spec.multiplier) + 8 * excess
    brought = 0.0
    if machine.name in machines.STRIDED and _is_large(spec, machine):
        # Every row of tiles brings its rows of inputs anew, half a line a cycle.
        lines = window_rows * tile.columns * spec.strides[1] * machine.cpu.vector_bytes / LINE_BYTES
        brought = 2 * lines
    return float(depthwise_space.cycles_per_fma(spec, machine, tile, loads, brought))


def apply(spec: ConvSpec, machine: Machine, decisions: DepthwiseDecisions) -> Function:
    """Schedule `compute.depthwise_conv2d.direct`; raises nothing for legal decisions."""
    lanes = _whole_vector(spec, machine, decisions.channels)
    products = dot_code.multiply_add(spec.dtype, machine, lanes)
    return nest(spec, decisions, spec.accumulator_dtype, products, lanes)


def _whole_vector(spec: ConvSpec, machine: Machine, channels: int) -> int:
    """Lanes of a vector that whole tiles of channels consist of; 0 where a tile is ragged."""
    whole = machine.cpu.lanes(spec.accumulator_dtype)
    if spec.in_channels % channels:
        return 0
    return next((lanes for lanes in (whole, whole // 2) if lanes and channels % lanes == 0), 0)


TILED = depthwise_space.schedule(
    "x86.depthwise_conv2d.tiled",
    depthwise_space.Instructions(
        widths=_widths,
        columns=(4, 3, 6, 7, 8, 5, 2, 1),
        rows=(2, 3, 4, 1),
        fits=_fits,
        cycles=_cycles,
        apply=apply,
        orders=_orders,
    ),
)
SCHEDULES = (TILED,)
