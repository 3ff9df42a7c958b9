"""Depthwise convolution of bytes on ARM with dot products: words of four columns, put together on the way.

Eight channels of two more columns of inputs are loaded and zipped, then two pairs of columns are zipped to
words: three instructions, and at stride 1 each word serves two outputs (compute/depthwise_conv2d_dot.py).
Instructions of a tile of 4 x 4 outputs of 3x3, stride 1, for eight channels:

    6 rows of 6 loads, 3 + 4 zips    78      96 sdot      16 * 2 starts and 16 * 2 stores    64

238 for 1152 multiply-adds, where smlal, four at a time, would need 288 alone. Of the cycles llvm-mca predicts
for a Cortex-A76 on 28x28x192 (which has one port for smlal and two for sdot) it takes 0.39: 10.4
multiply-adds a cycle in place of 4.1; stride 2 7.5 in place of 4.0, 5x5 on 14x14x96 10.1 in place of 4.2
(2026-11). uint8 data, made signed in every word, has 8.1.
"""

from __future__ import annotations

from tvmconv.compute import depthwise_conv2d_dot
from tvmconv.hardware import Function, Machine
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.arm import dot_code
from tvmconv.schedules.shared import code_size, depthwise_dot, depthwise_space
from tvmconv.schedules.shared.depthwise import DepthwiseDecisions

_LANES, _CHANNELS = dot_code.LANES, dot_code.WORDS_LANES
_VECTORS = _CHANNELS // _LANES
# Vectors of weights that stay in registers beside a tile: 12 of a 3x3 kernel of stride 1.
_MOST_RESIDENT = 16
# Instructions around a tile: addresses, the loop.
_LOOP = 10


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Bytes that the machine has an instruction for, whole vectors of channels."""
    return (
        not spec.is_empty
        and depthwise_conv2d_dot.words(spec) is not None
        and dot_code.instruction(spec.dtype, machine) is not None
        and spec.in_channels % _CHANNELS == 0
    )


def _widths(_spec: ConvSpec, _machine: Machine) -> list[int]:
    return [_CHANNELS]


def _phases(spec: ConvSpec) -> int:
    phases: int = depthwise_conv2d_dot.cut(spec).phases
    return phases


def _fits(spec: ConvSpec, machine: Machine, tile: DepthwiseDecisions) -> bool:
    """Few registers are spilled, and the unrolled code is short enough."""
    products = code_size.unrolled(tile.rows * tile.columns, 1, _products(spec))
    live = _live(spec, tile.columns)
    return 2 * live <= 3 * machine.cpu.vector_registers and products <= code_size.MOST_DEPTHWISE


def _instructions(spec: ConvSpec, machine: Machine, tile: DepthwiseDecisions) -> float:
    """Estimate instructions for an output, of those that a tile takes.

    Five for a register too many, in each row of outputs: fitted to counts of MobileNetV2's shapes, with
    kernels of 3x3 and 5x5, on a Cortex-A76 (2026-11).
    """
    rows, columns = tile.rows, tile.columns
    in_rows = min(depthwise_space.window(spec, tile)[0], rows * spec.kernel_height)
    halves = _halves(spec, columns)
    made = in_rows * (2 * halves + 2 + halves + 1 + 2 * halves)
    excess = max(0, _live(spec, columns) - machine.cpu.vector_registers)
    weights = _weights(spec)
    again = 0 if weights <= _MOST_RESIDENT else rows * weights / 2
    each = rows * columns * (_products(spec) + 4)
    total = each + made + again + 5 * excess * rows + _LOOP
    return float(total / (rows * columns) / depthwise_space.useful(spec, tile))


def _products(spec: ConvSpec) -> int:
    """Dot products of an output's eight channels."""
    words: int = depthwise_conv2d_dot.cut(spec).words
    return int(spec.kernel_height * words * _VECTORS)


def _weights(spec: ConvSpec) -> int:
    """Vectors of the filter's words, for all phases."""
    return _products(spec) * _phases(spec)


def _halves(spec: ConvSpec, columns: int) -> int:
    """Words of a row of inputs that a tile uses, which begin at every second column."""
    by = depthwise_conv2d_dot.cut(spec)
    return int(-(-columns // by.phases) + 2 * (by.words - 1))


def _live(spec: ConvSpec, columns: int) -> int:
    """Registers of a row of sums, of the words that it reads, and of weights if they stay."""
    words, weights = spec.kernel_height * _halves(spec, columns), _weights(spec)
    resident = weights if weights <= _MOST_RESIDENT else 2
    return int((columns + words) * _VECTORS + resident)


def apply(spec: ConvSpec, machine: Machine, decisions: DepthwiseDecisions) -> Function:
    """Schedule `compute.depthwise_conv2d_dot.direct`; raises nothing for legal decisions."""
    dot = dot_code.dot(spec.dtype, machine, turn=True)
    calls = None if dot is None else (dot_code.words(spec.dtype), dot)
    operand = dot_code.operand(spec.dtype, machine)
    return depthwise_dot.apply(spec, decisions, _LANES, calls, operand)


WORDS = depthwise_space.schedule(
    "arm.depthwise_conv2d.dot",
    depthwise_space.Instructions(
        widths=_widths,
        columns=(4, 2, 6, 8, 3, 1, 5, 7),
        rows=(4, 2, 3, 1),
        phases=_phases,
        fits=_fits,
        cycles=_instructions,
        apply=apply,
    ),
    accepts,
)
SCHEDULES = (WORDS,)
