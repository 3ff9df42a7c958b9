"""Dense convolution of bytes and bfloat16 on x86: conv2d_direct.py's tiles over dot products of words.

The tile, the loops around it and its registers are those of conv2d_direct.py. A step of the reduction takes
one word of each pixel, four bytes or two bfloat16, in place of one number; a vector of weights has one word
for each of its lanes' channels:

    AVX-512, bytes    12 x 2 vectors: 24 vpdpbusd = 1536 multiply-adds for 14 loads
    AVX2, bytes        4 x 2 vectors: 16 pmaddwd = 256 for 6 loads, 6 widenings of weights, 8 of data

Measured, Sapphire Rapids (VNNI), one thread, 2026-11-23, default decisions: ResNet-50's layers of bytes run
at 3.1 to 4.0 times the float32 multiply-adds that L1 can feed; 4 is the most.

What of the data has to be changed, padded or made unsigned, is copied once: bytes are a quarter of
float32's traffic. A block of channels is a multiple of whole vectors or of halves, 24 being three halves:
the instruction must cover the tile.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvmconv.compute import conv2d_dot
from tvmconv.compute.conv2d import filter_blocks
from tvmconv.hardware import Choice, Function, Machine
from tvmconv.problem.rules import BYTE_DTYPES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import dense_dot, dense_space
from tvmconv.schedules.shared.dense import DenseDecisions
from tvmconv.schedules.x86 import conv2d_direct, dot_code, machines

_OPERAND = "uint8"


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Bytes and bfloat16 that the machine has an instruction for, cut into words."""
    return (
        dense_space.accepts(spec, machine)
        and bool(dot_code.vector_sizes(spec.dtype, machine))
        and conv2d_dot.words(spec) is not None
    )


def preferred(spec: ConvSpec, machine: Machine) -> bool:
    """Where the instruction is faster than float32's multiply-add on what was converted before."""
    return spec.dtype in BYTE_DTYPES or machine.name not in machines.SLOW_BFLOAT16


def _channel_blocks(spec: ConvSpec, machine: Machine) -> list[int]:
    """Up to four vectors, or an odd number of halves where that divides the channels and vectors don't."""
    group, _ = filter_blocks(spec, 1)
    sizes = dot_code.vector_sizes(spec.dtype, machine)
    widest = 4 * sizes[0]
    blocks = {block for size in sizes for block in range(size, widest + 1, size)}
    exact = sorted((block for block in blocks if group % block == 0), reverse=True)
    return exact or [min(size for size in sizes if size >= min(group, sizes[0]))]


def _unrolls(spec: ConvSpec, _machine: Machine) -> list[int]:
    return [u for u in (1, 2, 4) if conv2d_dot.cut(spec).words % u == 0]


def _pads(spec: ConvSpec, _machine: Machine) -> Sequence[Choice]:
    return dense_dot.pads(spec, _OPERAND)


def _lanes(machine: Machine, channels: int) -> int:
    """Lanes of the vectors, of one size, that make up a block of channels."""
    whole = machine.cpu.lanes("int32")
    return whole if channels % whole == 0 else whole // 2


def _vectors(machine: Machine, channels: int) -> int:
    return channels // _lanes(machine, channels)


def _fits(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> bool:
    """Accumulators, one vector per weight, one broadcast; where bytes are widened, two and a mask."""
    vectors = _vectors(machine, tile.channels)
    others = vectors + 1
    if dot_code.is_widening(spec.dtype, machine):
        others = 2 * others + 1
    return tile.pixels == 1 or tile.pixels * vectors + others <= machine.cpu.vector_registers


def _cycles(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> float:
    vectors = _vectors(machine, tile.channels)
    return dense_space.cycles_per_fma(spec, machine, tile, vectors)


def apply(spec: ConvSpec, machine: Machine, decisions: DenseDecisions) -> Function:
    """Schedule `compute.conv2d_dot.direct`; raises nothing for legal decisions."""
    lanes = _lanes(machine, decisions.channels)
    dot = dot_code.dot(spec.dtype, machine, lanes)
    return dense_dot.apply(spec, decisions, lanes, dot, _OPERAND)


WORDS = dense_space.schedule(
    "x86.conv2d.dot",
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
    preferred,
)
SCHEDULES = (WORDS,)
