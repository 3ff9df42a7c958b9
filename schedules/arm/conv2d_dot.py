"""Dense convolution of bytes on ARM with dot products: conv2d_direct.py's tiles over words of four bytes.

The tile, the loops around it and its registers are those of conv2d_direct.py; a step of the reduction takes a
word of four input channels in place of one number. Four words of a pixel come with one load, and each
multiplies the weights' vectors from its lane, for four steps (nv = channels / 4):

    7 x 12     84 sdot = 1344 multiply-adds of 84 + 7 loads of data + 6 of pairs of weights + 4 of loop
"""

from __future__ import annotations

from collections.abc import Sequence

from tvmconv.compute import conv2d_dot
from tvmconv.compute.conv2d import filter_blocks
from tvmconv.hardware import Choice, Function, Machine
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.arm import conv2d_direct, dense_costs, dot_code
from tvmconv.schedules.shared import dense_dot, dense_space
from tvmconv.schedules.shared.dense import DenseDecisions

_LANES = dot_code.LANES


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Bytes that the machine has an instruction for, cut into words."""
    return (
        dense_space.accepts(spec, machine)
        and dot_code.instruction(spec.dtype, machine) is not None
        and conv2d_dot.words(spec) is not None
    )


def _channel_blocks(spec: ConvSpec, _machine: Machine) -> list[int]:
    """One to five vectors, exact divisors where there are any."""
    group, _ = filter_blocks(spec, 1)
    blocks = range(5 * _LANES, 0, -_LANES)
    return [b for b in blocks if group % b == 0] or [b for b in (8, 4) if b < group + _LANES]


def _unrolls(spec: ConvSpec, _machine: Machine) -> list[int]:
    """Words a step: whole vectors of data, where they divide; rows of a kernel are one step."""
    cut = conv2d_dot.cut(spec)
    if cut.rows:
        return [cut.words] if cut.words <= 2 * _LANES else [1]
    return [u for u in (8, 4, 6, 2, 3, 1) if cut.words % u == 0][:2]


def _pads(spec: ConvSpec, machine: Machine) -> Sequence[Choice]:
    return dense_dot.pads(spec, dot_code.operand(spec.dtype, machine))


def _fits(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> bool:
    """Accumulators, the data of the pixels or of a row of the kernel, and the weights of a step."""
    pixels, vectors = tile.pixels, tile.channels // _LANES
    data = 2 if conv2d_dot.cut(spec).rows else pixels
    return pixels == 1 or pixels * vectors + data + vectors <= machine.cpu.vector_registers


def _cycles(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> float:
    cut = conv2d_dot.cut(spec)
    values_per_load, steps = 1 if cut.rows else _LANES, cut.total // tile.unroll
    return dense_costs.tile_cycles(spec, machine, tile, _LANES, values_per_load, steps)


def apply(spec: ConvSpec, machine: Machine, decisions: DenseDecisions) -> Function:
    """Schedule `compute.conv2d_dot.direct`; raises nothing for legal decisions."""
    dot, operand = dot_code.dot(spec.dtype, machine), dot_code.operand(spec.dtype, machine)
    load_words = not conv2d_dot.cut(spec).rows
    return dense_dot.apply(spec, decisions, _LANES, dot, operand, load_words)


WORDS = dense_space.schedule(
    "arm.conv2d.dot",
    dense_space.Instructions(
        blocks=_channel_blocks,
        lengths=conv2d_direct.lengths,
        unrolls=_unrolls,
        pads=_pads,
        fits=_fits,
        cycles=_cycles,
        apply=apply,
    ),
    accepts,
)
SCHEDULES = (WORDS,)
