"""Dense convolution of bytes on ARM with dot products: conv2d.py's tiles over words of four bytes.

The tile, the loops around it and its registers are those of conv2d.py; a step of the reduction takes a word
of four input channels in place of one number. Four words of a pixel come with one load, and each multiplies
the weights' vectors from its lane, for four steps (nv = channels / 4):

    7 x 12     84 sdot = 1344 multiply-adds of 84 + 7 loads of data + 6 of pairs of weights + 4 of loop
"""

from __future__ import annotations

from tvmconv.compute import conv2d_dot
from tvmconv.compute.conv2d import filter_blocks
from tvmconv.compute.geometry import geometry
from tvmconv.hardware import Choice, Decisions, Function, Knob, Machine, Schedule
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.arm import conv2d_direct, dense_costs, dot_code
from tvmconv.schedules.shared import dense, dense_dot, tile_costs

_LANES = dot_code.LANES


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Bytes that the machine has an instruction for, cut into words."""
    return (
        conv2d_direct.accepts(spec, machine)
        and dot_code.instruction(spec.dtype, machine) is not None
        and conv2d_dot.words(spec) is not None
    )


def knobs(spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile, the order of its two outer loops, how many words are unrolled, and where the copy goes."""
    g, cut = geometry(spec), conv2d_dot.cut(spec)
    return (
        Knob("channels", tuple(_channel_blocks(spec))),
        Knob("pixels", tuple(tile_costs.pixel_tiles(g.out_width, machine.vector_registers - 8))),
        Knob("order", (dense.WEIGHTS_OUTER, dense.PIXELS_OUTER)),
        Knob("unroll", tuple(_unrolls(cut))),
        Knob("pad", dense_dot.pads(spec, dot_code.operand(spec.dtype, machine))),
        Knob("rows", tuple(tile_costs.row_bands(g.out_height))),
    )


def _channel_blocks(spec: ConvSpec) -> list[int]:
    """One to five vectors, exact divisors where there are any."""
    group, _ = filter_blocks(spec, 1)
    blocks = range(5 * _LANES, 0, -_LANES)
    return [b for b in blocks if group % b == 0] or [b for b in (8, 4) if b < group + _LANES]


def _unrolls(cut: conv2d_dot.Words) -> list[int]:
    """Words a step: whole vectors of data, where they divide; rows of a kernel are one step."""
    if cut.rows:
        return [cut.words] if cut.words <= 2 * _LANES else [1]
    return [u for u in (8, 4, 6, 2, 3, 1) if cut.words % u == 0][:2]


def legal(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """The tile fits the registers, and there are jobs."""
    pixels, vectors = int(decisions["pixels"]), int(decisions["channels"]) // _LANES
    by_weights = decisions["order"] == dense.WEIGHTS_OUTER
    few = dense.jobs(spec, decisions) < tile_costs.LEAST_JOBS
    if few and (by_weights or decisions["pad"] == "rows"):
        return False
    data = 2 if conv2d_dot.cut(spec).rows else pixels
    return pixels == 1 or pixels * vectors + data + vectors <= machine.vector_registers


def default(spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    """The tile with the least estimated time per dot product, and an order that spares the caches."""
    space = {knob.name: knob.candidates for knob in knobs(spec, machine)}
    rest: dict[str, Choice] = {
        "order": dense.WEIGHTS_OUTER
        if conv2d_direct.streams_weights(spec, machine)
        else dense.PIXELS_OUTER,
        "pad": "image",
        "rows": space["rows"][0],
    }
    points: list[dict[str, Choice]] = [
        {**rest, "channels": channels, "pixels": pixels, "unroll": unroll}
        for channels in space["channels"]
        for pixels in space["pixels"]
        for unroll in space["unroll"]
    ]
    if not any(legal(spec, machine, point) for point in points):  # too few blocks to share out
        points = [{**point, "order": dense.PIXELS_OUTER} for point in points]
    usable = (point for point in points if legal(spec, machine, point))
    return min(usable, key=lambda point: cycles_per_dot(spec, machine, point))


def cycles_per_dot(spec: ConvSpec, machine: Machine, decisions: Decisions) -> float:
    """Estimate cycles per useful dot product: conv2d.cycles_per_fma's sum, for words."""
    g, cut = geometry(spec), conv2d_dot.cut(spec)
    group, _ = filter_blocks(spec, 1)
    cycles: float = dense_costs.tile_cycles(
        machine,
        pixels=int(decisions["pixels"]),
        channels=int(decisions["channels"]),
        unroll=int(decisions["unroll"]),
        lanes=_LANES,
        values_per_load=1 if cut.rows else _LANES,
        steps=cut.total // int(decisions["unroll"]),
        out_width=g.out_width,
        group=group,
    )
    return cycles


def apply(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """Schedule `compute.dot_conv2d.direct`; raises nothing for legal decisions."""
    dot = dot_code.dot(spec.dtype, machine)
    load_words = not conv2d_dot.cut(spec).rows
    return dense_dot.apply(
        spec, decisions, _LANES, dot, dot_code.operand(spec.dtype, machine), load_words
    )


WORDS = Schedule("arm.conv2d.dot", accepts, knobs, legal, default, apply)
SCHEDULES = (WORDS,)
