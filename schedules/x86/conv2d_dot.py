"""Dense convolution of bytes and bfloat16 on x86: conv2d_direct.py's tiles over dot products of words.

The tile, the loops around it and its registers are those of conv2d_direct.py. A step of the reduction takes
one word of each pixel, four bytes or two bfloat16, in place of one number; a vector of weights has one word
for each of its lanes' channels:

    AVX-512, bytes    12 x 2 vectors: 24 vpdpbusd = 1536 multiply-adds for 14 loads
    AVX2, bytes        6 x 2 vectors: 12 pmaddwd and 12 additions = 192 for 8 loads, in words of two 16 bits

Measured, Sapphire Rapids (VNNI), one thread, 2026-11-23, default decisions: ResNet-50's layers of bytes run
at 3.1 to 4.0 times the float32 multiply-adds that L1 can feed; 4 is the most.

What of the data has to be changed, padded, made unsigned or widened, is copied once: bytes are a quarter of
float32's traffic, 16 bits half. A block of channels is a multiple of whole vectors or of halves, 24 being
three halves: the instruction must cover the tile.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvmconv.compute import conv2d_dot
from tvmconv.compute.conv2d import filter_blocks
from tvmconv.compute.geometry import geometry
from tvmconv.hardware import Choice, Function, Machine
from tvmconv.problem.rules import BYTE_DTYPES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import dense_dot, dense_space
from tvmconv.schedules.shared.dense import DenseDecisions
from tvmconv.schedules.x86 import byte_code, conv2d_direct, dot_code, machines


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Bytes and bfloat16 that the machine has an instruction for, cut into words."""
    return (
        dense_space.accepts(spec, machine)
        and bool(dot_code.vector_sizes(spec.dtype, machine))
        and conv2d_dot.words(spec, dot_code.operand(spec.dtype, machine)) is not None
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


def _unrolls(spec: ConvSpec, machine: Machine) -> list[int]:
    """Of sums that are additions of their own LLVM reorders those of unrolled steps, and spills for it.

    MobileNetV2's 1x1 layers take 1.1 to 1.2 times as long for 4 steps as for one (AVX2 code on Zen 5,
    2026-11). A single pixel's sums wait for each other, and gain.
    """
    operand = dot_code.operand(spec.dtype, machine)
    words = conv2d_dot.cut(spec, operand).words
    most = 1 if operand == "int16" and geometry(spec).out_width > 1 else 4
    return [u for u in (1, 2, 4) if words % u == 0 and u <= most]


def _pads(spec: ConvSpec, machine: Machine) -> Sequence[Choice]:
    return dense_dot.pads(spec, dot_code.operand(spec.dtype, machine))


def _lanes(machine: Machine, channels: int) -> int:
    """Lanes of the vectors, of one size, that make up a block of channels."""
    whole = machine.cpu.lanes("int32")
    return whole if channels % whole == 0 else whole // 2


def _vectors(machine: Machine, channels: int) -> int:
    return channels // _lanes(machine, channels)


def _fits(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> bool:
    """Accumulators, one vector per weight, one broadcast, and a product where it is added by itself."""
    vectors = _vectors(machine, tile.channels)
    others = vectors + 1 + (dot_code.operand(spec.dtype, machine) == "int16")
    return tile.pixels == 1 or tile.pixels * vectors + others <= machine.cpu.vector_registers


def _cycles(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> float:
    vectors = _vectors(machine, tile.channels)
    return dense_space.cycles_per_fma(spec, machine, tile, vectors)


def apply(spec: ConvSpec, machine: Machine, decisions: DenseDecisions) -> Function:
    """Schedule `compute.conv2d_dot.direct`; raises nothing for legal decisions."""
    lanes = _lanes(machine, decisions.channels)
    dot = dot_code.dot(spec.dtype, machine, lanes)
    operand = dot_code.operand(spec.dtype, machine)
    to_bytes = byte_code.to_bytes(spec, machine, decisions.channels)
    return dense_dot.apply(spec, decisions, lanes, dot, operand, to_bytes=to_bytes)


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
