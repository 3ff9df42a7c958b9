"""Depthwise convolution on ARM: a register tile of rows x columns for one vector of channels."""

from __future__ import annotations

from tvmconv.arguments import window_extent
from tvmconv.hardware import Choice, Decisions, Knob, Machine, Schedule
from tvmconv.nests import tiles
from tvmconv.nests.depthwise import INNER, MIDDLE, OUTER, apply
from tvmconv.spec import ConvSpec

# Unrolled multiply-adds of one tile: 4x4 outputs of a 5x5 kernel, 1.6 KiB of code in each of nine copies.
_MOST_UNROLLED = 400


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Every depthwise_conv2d with an output."""
    return spec.op == "depthwise_conv2d" and not spec.is_empty


def knobs(spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile and the order of the loops over tiles."""
    lanes = machine.lanes(spec.accumulator_dtype)
    widths = [w for w in (lanes, 2 * lanes, lanes // 2) if w and spec.in_channels % w == 0]
    if spec.in_channels <= 2 * lanes and spec.in_channels not in widths:
        widths.append(spec.in_channels)
    return (
        Knob("channels", tuple(widths) or (lanes,)),
        Knob("columns", tuple(t for t in (4, 3, 2, 5, 6, 7, 1) if t <= spec.out_width)),
        Knob("rows", tuple(t for t in (4, 2, 3, 1) if t <= spec.out_height)),
        Knob("order", (MIDDLE, INNER, OUTER)),
    )


def legal(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """Accumulators, one column of inputs and a row of weights fit; so does the unrolled code."""
    vectors = tiles.vectors(int(decisions["channels"]), machine, spec.accumulator_dtype)
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
        {"channels": space["channels"][0], "columns": columns, "rows": rows, "order": MIDDLE}
        for columns in space["columns"]
        for rows in space["rows"]
    ]
    return min(
        (point for point in points if legal(spec, machine, point)),
        key=lambda point: cycles_per_fma(spec, machine, int(point["rows"]), int(point["columns"])),
    )


def cycles_per_fma(spec: ConvSpec, machine: Machine, rows: int, columns: int) -> float:
    """Estimate cycles per useful vector multiply-add of a rows x columns tile."""
    (sh, sw), (dh, dw) = spec.strides, spec.dilations
    taps, accumulators = spec.kernel_height * spec.kernel_width, rows * columns * spec.multiplier
    window_rows = (rows - 1) * sh + window_extent(spec.kernel_height, dh)
    window_columns = (columns - 1) * sw + window_extent(spec.kernel_width, dw)
    inputs = min(window_rows * window_columns, rows * columns * taps)
    loads = inputs + taps * spec.multiplier
    fmas = accumulators * taps
    cycles = max(fmas / machine.fma_ports, loads / machine.load_ports, taps * machine.fma_latency)
    computed = tiles.rounded(spec.out_height, rows) * tiles.rounded(spec.out_width, columns)
    useful = (3 + spec.out_height * spec.out_width / computed) / 4
    return float((cycles + loads / 8) / fmas / useful)


TILED = Schedule("arm.depthwise_conv2d.tiled", accepts, knobs, legal, default, apply)
SCHEDULES = (TILED,)
