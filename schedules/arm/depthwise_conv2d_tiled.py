"""Depthwise convolution on ARM: a register tile of rows x columns for one vector of channels.

THE TILE reads each of its inputs once and uses it for every tap that covers it; the nine weights of a 3x3
kernel stay in registers along a row of tiles. For 3x3, instructions for a vector of outputs without bias
and activation, which is 9 multiply-adds, the loads, a start and a store:

    stride 1   4 x 4 outputs   36 inputs for 144 multiply-adds    9 + 2.3 + 2
               3 x 5           35            135                  9 + 2.3 + 2
    stride 2   1 x 7           45            63                   9 + 6.4 + 2
               2 x 4           45            72                   9 + 5.6 + 2

A bias costs nothing, the sums start there (schedules/shared/bias_start.py); relu6 costs two instructions.

BYTES without dot products (dot_depthwise_conv2d.py): eight channels come with one load, are widened to 16
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
from tvmconv.compute.geometry import round_up
from tvmconv.hardware import Choice, Decisions, Function, Knob, Machine, Schedule
from tvmconv.problem.arguments import window_extent
from tvmconv.problem.rules import BYTE_DTYPES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import tile_costs
from tvmconv.schedules.shared.depthwise import INNER, INSIDE, MIDDLE, OUTER, OUTSIDE, nest

# Weights of a channel that stay in registers beside a tile; a 5x5 kernel's are loaded for each tile.
_MOST_RESIDENT = 16
# Instructions around a tile: addresses, the loop.
_LOOP = 10
# Unrolled multiply-adds of one tile: 4x4 outputs of a 5x5 kernel, 1.6 KiB of code in each of nine copies.
_MOST_UNROLLED = 400


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Every depthwise_conv2d with an output."""
    return spec.op == "depthwise_conv2d" and not spec.is_empty


def _lanes(spec: ConvSpec, machine: Machine) -> int:
    """Channels of a vector of inputs: eight bytes, widened to 16 bits, are summed in two vectors."""
    lanes = machine.lanes(spec.accumulator_dtype)
    return 2 * lanes if spec.dtype in BYTE_DTYPES else lanes


def knobs(spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile and the order of the loops over tiles."""
    lanes = _lanes(spec, machine)
    widths = [w for w in (lanes, 2 * lanes, lanes // 2) if w and spec.in_channels % w == 0]
    if spec.in_channels <= 2 * lanes and spec.in_channels not in widths:
        widths.append(spec.in_channels)
    return (
        Knob("channels", tuple(widths) or (lanes,)),
        Knob("columns", tuple(t for t in (4, 3, 2, 5, 6, 7, 1) if t <= spec.out_width)),
        Knob("rows", tuple(t for t in (4, 2, 3, 1) if t <= spec.out_height)),
        Knob("order", (MIDDLE, INNER, OUTER)),
        Knob("taps", (INSIDE, OUTSIDE)),
    )


def legal(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """Accumulators, one column of inputs and a row of weights fit; so does the unrolled code."""
    vectors = -(-int(decisions["channels"]) // _lanes(spec, machine))
    outputs = int(decisions["rows"]) * int(decisions["columns"]) * spec.multiplier
    if outputs == spec.multiplier:
        return True
    taps = spec.kernel_height * spec.kernel_width
    live = outputs * vectors + spec.kernel_height + 2
    return 8 * live <= 7 * machine.vector_registers and outputs * taps <= _MOST_UNROLLED


def default(spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    """The legal tile of one vector with the fewest estimated cycles per multiply-add."""
    space = {knob.name: knob.candidates for knob in knobs(spec, machine)}
    points: list[dict[str, Choice]] = [
        {
            "channels": space["channels"][0],
            "columns": columns,
            "rows": rows,
            "order": MIDDLE,
            "taps": INSIDE,
        }
        for columns in space["columns"]
        for rows in space["rows"]
    ]
    return min(
        (point for point in points if legal(spec, machine, point)),
        key=lambda point: cycles_per_fma(spec, machine, int(point["rows"]), int(point["columns"])),
    )


def cycles_per_fma(spec: ConvSpec, machine: Machine, rows: int, columns: int) -> float:
    """Estimate cycles per useful vector multiply-add of a rows x columns tile.

    The largest of arithmetic, loads and the latency of the taps' chain, and a third of a cycle for every
    instruction that is none of them (cores here start two to eight in a cycle).
    """
    (sh, sw), (dh, dw) = spec.strides, spec.dilations
    taps, accumulators = spec.kernel_height * spec.kernel_width, rows * columns * spec.multiplier
    window_rows = (rows - 1) * sh + window_extent(spec.kernel_height, dh)
    window_columns = (columns - 1) * sw + window_extent(spec.kernel_width, dw)
    # With dilation neighbouring windows may share nothing.
    inputs = min(window_rows * window_columns, rows * columns * taps)
    resident = taps * spec.multiplier <= _MOST_RESIDENT
    # Registers that LLVM wants. The square of the stride and the six instructions for each register too
    # many are fitted to counts of MobileNetV2's layers on a Cortex-A72 (2026-11), not derived.
    live = accumulators + (taps * spec.multiplier if resident else 2)
    live += min(window_rows, rows * spec.kernel_height) * sw**2
    excess = max(0, live - machine.vector_registers)
    loads = inputs + (0 if resident else taps * spec.multiplier) + 6 * excess
    fmas = accumulators * taps
    cycles = max(fmas / machine.fma_ports, loads / machine.load_ports, taps * machine.fma_latency)
    cycles += (loads + 4 * accumulators + _LOOP) / 3
    return float(cycles / fmas / _useful(spec, rows, columns))


def _useful(spec: ConvSpec, rows: int, columns: int) -> float:
    """Share of a tile's efficiency that is left with ragged tiles at the edges, and with few tiles.

    A ragged tile computes nothing in vain, it is specialised too; it only has fewer accumulators.
    """
    computed = round_up(spec.out_height, rows) * round_up(spec.out_width, columns)
    ragged = (3 + spec.out_height * spec.out_width / computed) / 4
    first, end = _interior(spec, columns)
    # Two interior tiles are unrolled into one piece of code, which LLVM spills: 46 in place of 51 % of
    # the instructions of a 2 x 7 tile are work, 48 in place of 54 of a 4 x 4 tile.
    return ragged * (0.9 if end - first == 2 else 1.0)


def _interior(spec: ConvSpec, columns: int) -> list[int]:
    window = window_extent(spec.kernel_width, spec.dilations[1])
    return tile_costs.interior(
        spec.out_width, columns, spec.in_width, spec.pads[2], spec.strides[1], window
    )


def apply(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """Schedule `compute.depthwise_conv2d.direct`; raises nothing for legal decisions."""
    return nest(spec, decisions, stored=conv2d.widened(spec), from_bias=True)


TILED = Schedule("arm.depthwise_conv2d.tiled", accepts, knobs, legal, default, apply)
SCHEDULES = (TILED,)
