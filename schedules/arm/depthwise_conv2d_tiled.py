"""Depthwise convolution on ARM: a register tile of rows x columns for one vector of channels.

THE TILE reads each of its inputs once and uses it for every tap that covers it; the nine weights of a 3x3
kernel stay in registers along a row of tiles. For 3x3, instructions for a vector of outputs without bias
and activation, which is 9 multiply-adds, the loads, a start and a store:

    stride 1   4 x 4 outputs   36 inputs for 144 multiply-adds    9 + 2.3 + 2
               3 x 5           35            135                  9 + 2.3 + 2
    stride 2   1 x 7           45            63                   9 + 6.4 + 2
               2 x 4           45            72                   9 + 5.6 + 2

A bias costs nothing, the sums start there (schedules/shared/bias_start.py); relu6 costs two instructions.

BYTES without dot products (depthwise_conv2d_dot.py): eight channels come with one load, are widened to 16
bits and summed in two vectors by SMLAL. 28x28x192 has 2.9 multiply-adds for an instruction, stride 2 2.3;
with four channels and weights of 32 bits it had 2.1 and 1.5, float32 has 2.5 and 2.1 (counted, Cortex-A72,
2026-11). Halves in eights spill: float16 1.6 in place of 2.0.

THE ORDER of a tile's multiply-adds, knob "taps": with a tap for all outputs at a time ("outside") LLVM
keeps all inputs of that tap alive and spills; an output's taps at a time ("inside") need fewer registers.
Of the instructions of 14x14x384 with bias and relu6, tile 2 x 7, 37 % were multiply-adds with the one and
47 % with the other (counted, Cortex-A72, 2026-11, before the sums started at the bias).

THE BORDER is never padded: tiles there are compiled for themselves, without the taps in the padding.
"""

from __future__ import annotations

from tvmconv.compute import conv2d
from tvmconv.hardware import Function, Machine
from tvmconv.problem.arguments import window_extent
from tvmconv.problem.rules import BYTE_DTYPES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import depthwise_space, tile_costs
from tvmconv.schedules.shared.depthwise import (
    INSIDE,
    MIDDLE,
    DepthwiseDecisions,
    loops_over_taps,
    nest,
)

# Weights of a channel that stay in registers beside a tile; a 5x5 kernel's are loaded for each tile.
_MOST_RESIDENT = 16
# Instructions around a tile: addresses, the loop.
_LOOP = 10


def _lanes(spec: ConvSpec, machine: Machine) -> int:
    """Channels of a vector of inputs: eight bytes, widened to 16 bits, are summed in two vectors."""
    lanes = machine.cpu.lanes(spec.accumulator_dtype)
    return 2 * lanes if spec.dtype in BYTE_DTYPES else lanes


def _widths(spec: ConvSpec, machine: Machine) -> list[int]:
    return list(depthwise_space.widths(spec.in_channels, _lanes(spec, machine), ragged=True))


def _orders(_spec: ConvSpec, _machine: Machine) -> dict[str, str]:
    return {"order": MIDDLE, "taps": INSIDE}


def _fits(spec: ConvSpec, machine: Machine, tile: DepthwiseDecisions) -> bool:
    vectors = tile_costs.pieces(tile.channels, _lanes(spec, machine))
    return depthwise_space.fits(spec, machine, tile, vectors)


def _cycles(spec: ConvSpec, machine: Machine, tile: DepthwiseDecisions) -> float:
    """Estimate cycles per useful vector multiply-add of a tile.

    The largest of arithmetic, loads and the latency of the taps' chain, and a third of a cycle for every
    instruction that is none of them (cores here start two to eight in a cycle).
    """
    if loops_over_taps(spec, tile.channels):
        loads = depthwise_space.looped_loads(spec, tile)
        return float(depthwise_space.cycles_per_fma(spec, machine, tile, loads))
    taps = spec.kernel_height * spec.kernel_width
    accumulators = tile.rows * tile.columns * spec.multiplier
    window_rows, inputs = depthwise_space.window(spec, tile)
    resident = taps * spec.multiplier <= _MOST_RESIDENT
    # Registers that LLVM wants. The square of the stride and the six instructions for each register too
    # many are fitted to counts of MobileNetV2's layers on a Cortex-A72 (2026-11), not derived.
    live = accumulators + (taps * spec.multiplier if resident else 2)
    live += min(window_rows, tile.rows * spec.kernel_height) * spec.strides[1] ** 2
    excess = max(0, live - machine.cpu.vector_registers)
    loads = inputs + (0 if resident else taps * spec.multiplier) + 6 * excess
    fmas = accumulators * taps
    cycles = max(
        fmas / machine.cpu.fma_ports, loads / machine.cpu.load_ports, taps * machine.cpu.fma_latency
    )
    cycles += (loads + 4 * accumulators + _LOOP) / 3
    # Two interior tiles are unrolled into one piece of code, which LLVM spills: 46 in place of 51 % of
    # the instructions of a 2 x 7 tile are work, 48 in place of 54 of a 4 x 4 tile.
    first, end = _interior(spec, tile.columns)
    useful = depthwise_space.useful(spec, tile) * (0.9 if end - first == 2 else 1.0)
    return float(cycles / fmas / useful)


def _interior(spec: ConvSpec, columns: int) -> list[int]:
    window = window_extent(spec.kernel_width, spec.dilations[1])
    return tile_costs.interior(
        spec.out_width, columns, spec.in_width, spec.pads[2], spec.strides[1], window
    )


def apply(spec: ConvSpec, _machine: Machine, decisions: DepthwiseDecisions) -> Function:
    """Schedule `compute.depthwise_conv2d.direct`; raises nothing for legal decisions."""
    return nest(spec, decisions, stored=conv2d.widened(spec), from_bias=True)


TILED = depthwise_space.schedule(
    "arm.depthwise_conv2d.tiled",
    depthwise_space.Instructions(
        widths=_widths,
        columns=(4, 3, 2, 5, 6, 7, 1),
        rows=(4, 2, 3, 1),
        fits=_fits,
        cycles=_cycles,
        apply=apply,
        orders=_orders,
    ),
)
SCHEDULES = (TILED,)
