"""Depthwise convolution of bytes on ARM with dot products: words of four columns, put together on the way.

Eight channels of two more columns of inputs are loaded and zipped, then two pairs of columns are zipped to
words: three instructions, and at stride 1 each word serves two outputs (compute/dot_depthwise_conv2d.py).
Instructions of a tile of 4 x 4 outputs of 3x3, stride 1, for eight channels:

    6 rows of 6 loads, 3 + 4 zips    78      96 sdot      16 * 2 starts and 16 * 2 stores    64

238 for 1152 multiply-adds, where smlal, four at a time, would need 288 alone. Of the cycles llvm-mca predicts
for a Cortex-A76 on 28x28x192 (which has one port for smlal and two for sdot) it takes 0.39: 10.4
multiply-adds a cycle in place of 4.1; stride 2 7.5 in place of 4.0, 5x5 on 14x14x96 10.1 in place of 4.2
(2026-11). uint8 data, made signed in every word, has 8.1.
"""

from __future__ import annotations

from tvmconv.compute import depthwise_conv2d_dot
from tvmconv.compute.geometry import round_up
from tvmconv.hardware import Choice, Decisions, Function, Knob, Machine, Schedule
from tvmconv.problem.arguments import window_extent
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.arm import dot_code
from tvmconv.schedules.shared import depthwise_dot

_LANES, _CHANNELS = dot_code.LANES, dot_code.WORDS_LANES
_VECTORS = _CHANNELS // _LANES
# Vectors of weights that stay in registers beside a tile: 12 of a 3x3 kernel of stride 1.
_MOST_RESIDENT = 16
# Instructions around a tile: addresses, the loop.
_LOOP = 10
# Unrolled dot products of one tile: 1.6 KiB of code in each of nine copies.
_MOST_UNROLLED = 400


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Bytes that the machine has an instruction for, whole vectors of channels."""
    return (
        not spec.is_empty
        and depthwise_conv2d_dot.words(spec) is not None
        and dot_code.instruction(spec.dtype, machine) is not None
        and spec.in_channels % _CHANNELS == 0
    )


def knobs(spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile; outputs that share words are in one."""
    phases = depthwise_conv2d_dot.cut(spec).phases
    most = round_up(spec.out_width, phases)
    columns = [t for t in (4, 2, 6, 8, 3, 1, 5, 7) if t % phases == 0 and t <= most]
    return (
        Knob("channels", (_CHANNELS,)),
        Knob("columns", tuple(columns)),
        Knob("rows", tuple(t for t in (4, 2, 3, 1) if t <= spec.out_height)),
    )


def legal(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """Few registers are spilled, and the unrolled code, nine times at the border, fits the cache."""
    phases = depthwise_conv2d_dot.cut(spec).phases
    rows, columns = int(decisions["rows"]), int(decisions["columns"])
    if (rows, columns) == (1, phases):
        return True
    live, products = _live(spec, columns), rows * columns * _products(spec)
    return 2 * live <= 3 * machine.vector_registers and products <= _MOST_UNROLLED


def default(spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    """The legal tile with the fewest estimated instructions for an output."""
    space = {knob.name: knob.candidates for knob in knobs(spec, machine)}
    points: list[dict[str, Choice]] = [
        {"channels": _CHANNELS, "columns": columns, "rows": rows}
        for columns in space["columns"]
        for rows in space["rows"]
    ]
    return min(
        (point for point in points if legal(spec, machine, point)),
        key=lambda p: instructions(spec, machine, int(p["rows"]), int(p["columns"])),
    )


def instructions(spec: ConvSpec, machine: Machine, rows: int, columns: int) -> float:
    """Estimate instructions for an output, of those that a rows x columns tile takes.

    Five for a register too many, in each row of outputs: fitted to counts of MobileNetV2's shapes, with
    kernels of 3x3 and 5x5, on a Cortex-A76 (2026-11).
    """
    window = window_extent(spec.kernel_height, spec.dilations[0])
    in_rows = min((rows - 1) * spec.strides[0] + window, rows * spec.kernel_height)
    halves = _halves(spec, columns)
    made = in_rows * (2 * halves + 2 + halves + 1 + 2 * halves)
    excess = max(0, _live(spec, columns) - machine.vector_registers)
    weights = _weights(spec)
    again = 0 if weights <= _MOST_RESIDENT else rows * weights / 2
    each = rows * columns * (_products(spec) + 4)
    total = each + made + again + 5 * excess * rows + _LOOP
    computed = round_up(spec.out_height, rows) * round_up(spec.out_width, columns)
    ragged = (3 + spec.out_height * spec.out_width / computed) / 4
    return float(total / (rows * columns) / ragged)


def _products(spec: ConvSpec) -> int:
    """Dot products of an output's eight channels."""
    words: int = depthwise_conv2d_dot.cut(spec).words
    return int(spec.kernel_height * words * _VECTORS)


def _weights(spec: ConvSpec) -> int:
    """Vectors of the filter's words, for all phases."""
    phases: int = depthwise_conv2d_dot.cut(spec).phases
    return int(_products(spec) * phases)


def _halves(spec: ConvSpec, columns: int) -> int:
    """Words of a row of inputs that a tile uses, which begin at every second column."""
    by = depthwise_conv2d_dot.cut(spec)
    return int(-(-columns // by.phases) + 2 * (by.words - 1))


def _live(spec: ConvSpec, columns: int) -> int:
    """Registers of a row of sums, of the words that it reads, and of weights if they stay."""
    words, weights = spec.kernel_height * _halves(spec, columns), _weights(spec)
    resident = weights if weights <= _MOST_RESIDENT else 2
    return int((columns + words) * _VECTORS + resident)


def apply(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """Schedule `compute.dot_depthwise_conv2d.direct`; raises nothing for legal decisions."""
    dot = dot_code.dot(spec.dtype, machine, turn=True)
    calls = None if dot is None else (dot_code.words(spec.dtype), dot)
    operand = dot_code.operand(spec.dtype, machine)
    return depthwise_dot.apply(spec, decisions, _LANES, calls, operand)


WORDS = Schedule("arm.depthwise_conv2d.dot", accepts, knobs, legal, default, apply)
SCHEDULES = (WORDS,)
