"""Dense convolution of bytes and bfloat16 on x86: conv2d.py's tiles over dot products of words.

The tile, the loops around it and its registers are those of conv2d.py. A step of the reduction takes one
word of each pixel, four bytes or two bfloat16, in place of one number; a vector of weights has one word
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

from tvmconv.compute import conv2d_dot
from tvmconv.compute.conv2d import filter_blocks
from tvmconv.compute.geometry import geometry
from tvmconv.hardware import Choice, Decisions, Function, Knob, Machine, Schedule
from tvmconv.problem.rules import BYTE_DTYPES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import dense, dense_dot, tile_costs
from tvmconv.schedules.x86 import conv2d_direct, dot_code, machines

_OPERAND = "uint8"


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Bytes and bfloat16 that the machine has an instruction for, cut into words."""
    return (
        conv2d_direct.accepts(spec, machine)
        and bool(dot_code.vector_sizes(spec.dtype, machine))
        and conv2d_dot.words(spec) is not None
    )


def preferred(spec: ConvSpec, machine: Machine) -> bool:
    """Where the instruction is faster than float32's multiply-add on what was converted before."""
    return spec.dtype in BYTE_DTYPES or machine.name not in machines.SLOW_BFLOAT16


def knobs(spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile, the order of its two outer loops, how much is unrolled, and where the copy goes."""
    g, cut = geometry(spec), conv2d_dot.cut(spec)
    return (
        Knob("channels", tuple(_channel_blocks(spec, machine))),
        Knob("pixels", tuple(tile_costs.pixel_tiles(g.out_width, machine.vector_registers - 2))),
        Knob("order", (dense.WEIGHTS_OUTER, dense.PIXELS_OUTER)),
        Knob("unroll", tuple(u for u in (1, 2, 4) if cut.words % u == 0)),
        Knob("pad", dense_dot.pads(spec, _OPERAND)),
        Knob("rows", tuple(tile_costs.row_bands(g.out_height))),
    )


def _channel_blocks(spec: ConvSpec, machine: Machine) -> list[int]:
    """Up to four vectors, or an odd number of halves where that divides the channels and vectors don't."""
    group, _ = filter_blocks(spec, 1)
    sizes = dot_code.vector_sizes(spec.dtype, machine)
    widest = 4 * sizes[0]
    blocks = {block for size in sizes for block in range(size, widest + 1, size)}
    exact = sorted((block for block in blocks if group % block == 0), reverse=True)
    return exact or [min(size for size in sizes if size >= min(group, sizes[0]))]


def _lanes(machine: Machine, decisions: Decisions) -> int:
    """Lanes of the vectors, of one size, that make up a block of channels."""
    whole = machine.lanes("int32")
    return whole if int(decisions["channels"]) % whole == 0 else whole // 2


def _vectors(machine: Machine, decisions: Decisions) -> int:
    return int(decisions["channels"]) // _lanes(machine, decisions)


def legal(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """The tile fits the registers, and there are jobs.

    Registers: accumulators, one vector per weight, one broadcast; where bytes are widened, twice as many
    of these two and a mask.
    """
    pixels, vectors = int(decisions["pixels"]), _vectors(machine, decisions)
    by_weights = decisions["order"] == dense.WEIGHTS_OUTER
    few = dense.jobs(spec, decisions) < tile_costs.LEAST_JOBS
    if few and (by_weights or decisions["pad"] == "rows"):
        return False
    others = vectors + 1
    if dot_code.is_widening(spec.dtype, machine):
        others = 2 * others + 1
    return pixels == 1 or pixels * vectors + others <= machine.vector_registers


def default(spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    """The tile with the least estimated time per multiply-add, and an order that spares the caches."""
    space = {knob.name: knob.candidates for knob in knobs(spec, machine)}
    streams = conv2d_direct.streams_weights(spec, machine)
    rest: dict[str, Choice] = {
        "order": dense.WEIGHTS_OUTER if streams else dense.PIXELS_OUTER,
        "unroll": space["unroll"][-1],
        "pad": "image",
        "rows": space["rows"][0],
    }
    points: list[dict[str, Choice]] = [
        {**rest, "channels": channels, "pixels": pixels}
        for channels in space["channels"]
        for pixels in space["pixels"]
    ]
    if not any(legal(spec, machine, point) for point in points):  # too few blocks to share out
        points = [{**point, "order": dense.PIXELS_OUTER} for point in points]

    def cost(point: Decisions) -> float:
        vectors = _vectors(machine, point)
        pixels, channels = int(point["pixels"]), int(point["channels"])
        return float(conv2d_direct.tile_cost(spec, machine, pixels, channels, vectors))

    return min((point for point in points if legal(spec, machine, point)), key=cost)


def apply(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """Schedule `compute.dot_conv2d.direct`; raises nothing for legal decisions."""
    lanes = _lanes(machine, decisions)
    dot = dot_code.dot(spec.dtype, machine, lanes)
    return dense_dot.apply(spec, decisions, lanes, dot, _OPERAND)


WORDS = Schedule("x86.conv2d.dot", accepts, knobs, legal, default, apply, preferred)
SCHEDULES = (WORDS,)
