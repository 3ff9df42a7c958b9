"""Depthwise convolution with the RISC-V vector extension: a register tile of rows x columns.

A tile of ``rows`` x ``columns`` outputs for ``channels`` channels (m registers) reads each of its inputs
once and uses it for every tap that covers it. For 3x3, stride 1, m = 1:

    tile    inputs   loads/FMA   registers (accumulators + weights + a column of inputs)
    1 x 4   18       18 / 36      4 + 9 + 3
    2 x 4   24       24 / 72      8 + 9 + 4
    2 x 6   32       32 / 108    12 + 9 + 4
    4 x 4   36       36 / 144    16 + 9 + 6 = 31: no register left for the scheduler

The weights stay in registers along a row of tiles; where they do not fit, they are loaded in every tile.
The loops around a tile, and its borders, are those of every CPU (tvmconv.schedules.shared: depthwise.py,
depthwise_space.py).
"""

from __future__ import annotations

from tvmconv.hardware import Function, Machine
from tvmconv.lowering.runs import power_of_two_runs
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import depthwise, depthwise_space
from tvmconv.schedules.shared.depthwise import DepthwiseDecisions

# Unrolled vector multiply-adds of one tile: its nine copies, with a load for each, are to fit the 32 KiB
# instruction cache (200 x 2 instructions x 4 bytes = 1.6 KiB a copy).
_MOST_UNROLLED = 200
# Registers that LLVM 22 fills with accumulators, weights and a column of inputs before it spills
# (X60, counted in the assembly, 2026-11: 3x3 none at 2 x 6 = 25, 73 stores at 2 x 7 = 27; where the weights
# do not stay, it loads them ahead: 5x5 14 stores at 2 x 3, 103 at 2 x 4).
_ROOM, _ROOM_FOR_PASSING_WEIGHTS = 25, 12


def _widths(spec: ConvSpec, machine: Machine) -> list[int]:
    """One or two registers of channels, where they divide; else all at once: 19 are 16 + 2 + 1."""
    lanes, channels = machine.cpu.lanes(spec.accumulator_dtype), spec.in_channels
    exact = [width for width in (lanes, 2 * lanes) if channels % width == 0]
    if exact or channels <= 4 * lanes:
        return exact or [channels]
    return [lanes]  # and the last vector is computed element by element


def _live(spec: ConvSpec, machine: Machine, tile: DepthwiseDecisions) -> tuple[int, int]:
    """Registers of the accumulators and of one column of inputs, and of the weights."""
    registers = -(-tile.channels // machine.cpu.lanes(spec.accumulator_dtype))
    window_rows, _ = depthwise_space.window(spec, tile)
    values = tile.rows * tile.columns * spec.multiplier + window_rows
    weights = spec.kernel_height * spec.kernel_width * spec.multiplier
    return values * registers, weights * registers


def _fits(spec: ConvSpec, machine: Machine, tile: DepthwiseDecisions) -> bool:
    """Accumulators and a column of inputs fit the registers, the unrolled code the cache."""
    outputs = tile.rows * tile.columns * spec.multiplier
    vectors = len(power_of_two_runs(tile.channels))  # 19 channels are three
    unrolled = outputs * spec.kernel_height * spec.kernel_width * vectors
    live, _ = _live(spec, machine, tile)
    return live <= machine.cpu.vector_registers and unrolled <= _MOST_UNROLLED


def _roomy(spec: ConvSpec, machine: Machine, tile: DepthwiseDecisions) -> bool:
    """Whether the tile spills next to nothing; one output always does not."""
    live, weights = _live(spec, machine, tile)
    return tile.rows == tile.columns == 1 or live <= max(_ROOM_FOR_PASSING_WEIGHTS, _ROOM - weights)


def _cycles(spec: ConvSpec, machine: Machine, tile: DepthwiseDecisions) -> float:
    """With the weights loaded in every tile where they do not stay."""
    _, loads = depthwise_space.window(spec, tile)
    if sum(_live(spec, machine, tile)) > _ROOM:
        loads += spec.kernel_height * spec.kernel_width * spec.multiplier
    return depthwise_space.cycles_per_fma(spec, machine, tile, loads)


def _apply(spec: ConvSpec, _machine: Machine, decisions: DepthwiseDecisions) -> Function:
    return depthwise.nest(spec, decisions, stored=spec.filter_dtype)


TILED = depthwise_space.schedule(
    "riscv.depthwise_conv2d.tiled",
    depthwise_space.Instructions(
        widths=_widths,
        columns=(4, 6, 7, 8, 3, 2, 1),
        rows=(2, 3, 4, 1),
        fits=_fits,
        roomy=_roomy,
        cycles=_cycles,
        apply=_apply,
    ),
)
