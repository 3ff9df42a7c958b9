"""Dense convolution of bytes and bfloat16 on x86 with AMX: tiles of up to 32 pixels x 32 channels.

Data is used as it lies, 64 bytes or fewer of each pixel's channels at a time; what is padded is copied
once. The loops around a tile are conv2d.py's, its reduction is one call (amx.py):

    a step multiplies 32 pixels x 32 channels x 64 bytes in 4 x 16 cycles and loads 4 tiles in 4 x 8
    a tile's end stores 64 rows of sums and adds the epilogue to them: about 200 cycles, three steps

Measured, Sapphire Rapids, one thread, 2026-11-23, default decisions: 28x28, 3x3, 128 channels of bytes 84 us
in place of VNNI's 288: 2.7e12 operations a second of the 7e12 that the instructions could do at 3.4 GHz.

A tile is pixels of one row of the output. Where rows are short or strides leave pixels out, "gather" copies
what every output pixel needs side by side first, all pixels become one row and tiles are full: 49 pixels
are 2 tiles in place of 7.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.compute import conv2d_dot
from tvmconv.compute.conv2d import filter_blocks
from tvmconv.compute.geometry import Geometry, geometry, round_up
from tvmconv.hardware import Choice, Decisions, Function, Knob, Machine, Schedule
from tvmconv.lowering.amx_calls import CUT, JOB, TILE
from tvmconv.lowering.interface import function, prim_func
from tvmconv.problem.rules import BYTE_DTYPES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import dense as tiled
from tvmconv.schedules.shared import tile_costs
from tvmconv.schedules.x86 import amx_code, conv2d_direct

GATHER = "gather"
_LEAST_WORDS = 24  # of bytes, to be worth more than VNNI's dot products
_MOST_PIXELS, _MOST_CHANNELS, _MOST_WORDS = 2 * amx_code.ROWS, 2 * amx_code.COLUMNS, 16


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Bytes and bfloat16 that the machine has an instruction for, cut into words."""
    return (
        conv2d_direct.accepts(spec, machine)
        and amx_code.can(spec.dtype, machine)
        and conv2d_dot.words(spec) is not None
    )


def preferred(spec: ConvSpec, machine: Machine) -> bool:
    """Whether a sum is long enough for what a tile's beginning and end cost.

    Bytes, 56x56, 64 -> 64 and 64 -> 256: 44 and 251 us, VNNI 35 and 156; 14x14, 96 -> 576: tuned 2.9 times
    as fast as VNNI's default (Sapphire Rapids, 2026-11-23).
    """
    return conv2d_dot.cut(spec).total >= (_LEAST_WORDS if spec.dtype in BYTE_DTYPES else 0)


def knobs(spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile, the order of its two outer loops, and where the copy goes."""
    g, (group, _) = geometry(spec), filter_blocks(spec, 1)
    banded = conv2d_dot.is_copied(spec, g, operand=None) and g.channels_last and g.out_height > 1
    gathers = (GATHER,) if conv2d_dot.can_gather(spec) else ()
    exact = [block for block in range(_MOST_CHANNELS, 3, -4) if group % block == 0]
    lengths = {n for pad in ("image", *gathers) for n in _lengths(spec, pad)}
    return (
        Knob("channels", tuple(exact[:3] or [_MOST_CHANNELS])),
        Knob("pixels", tuple(sorted(lengths, reverse=True))),
        Knob("order", (tiled.WEIGHTS_OUTER, tiled.PIXELS_OUTER)),
        Knob("pad", ("image", "rows", *gathers) if banded else ("image", *gathers)),
        Knob("rows", tuple(tile_costs.row_bands(g.out_height))),
    )


def _in_rows(spec: ConvSpec, pad: Choice) -> Geometry:
    return conv2d_dot.in_one_row(spec) if pad == GATHER else geometry(spec)


def _lengths(spec: ConvSpec, pad: Choice) -> list[int]:
    """Pixels of a tile: few tiles, full ones."""
    lengths: list[int] = tile_costs.pixel_tiles(_in_rows(spec, pad).out_width, _MOST_PIXELS)
    return lengths[:8] if pad == GATHER else lengths


def legal(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """There are jobs, and the tile is one for rows of this length."""
    pad, by_weights = decisions["pad"], decisions["order"] == tiled.WEIGHTS_OUTER
    if int(decisions["pixels"]) not in _lengths(spec, pad):
        return False
    if pad == GATHER:
        whole = int(decisions["rows"]) == spec.out_height  # says nothing where there is one row
        few = filter_blocks(spec, int(decisions["channels"]))[1] < tile_costs.LEAST_JOBS
        return whole and not (few and by_weights)
    few = tiled.jobs(spec, decisions) < tile_costs.LEAST_JOBS
    return not (few and (by_weights or pad == "rows"))


def default(spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    """The tile with the least estimated cycles per output, and an order that spares the caches."""
    space = {knob.name: knob.candidates for knob in knobs(spec, machine)}
    streams = conv2d_direct.streams_weights(spec, machine)
    rest: dict[str, Choice] = {
        "order": tiled.WEIGHTS_OUTER if streams else tiled.PIXELS_OUTER,
        "rows": space["rows"][0],
    }
    points: list[dict[str, Choice]] = [
        {**rest, "channels": channels, "pixels": pixels, "pad": pad}
        for channels in space["channels"]
        for pixels in space["pixels"]
        for pad in space["pad"]
        if pad != "rows"
    ]
    if not any(legal(spec, machine, point) for point in points):  # too few blocks to share out
        points = [{**point, "order": tiled.PIXELS_OUTER} for point in points]
    usable = (point for point in points if legal(spec, machine, point))
    return min(usable, key=lambda point: cycles(spec, point))


def cycles(spec: ConvSpec, decisions: Decisions) -> float:
    """Estimate cycles per output: instructions or loads of all steps, a tile's ends, what is gathered.

    A row of a tile is loaded or stored in half a cycle; gathering writes 16 bytes a cycle.
    """
    cut, g = conv2d_dot.cut(spec), _in_rows(spec, decisions["pad"])
    pixels, channels = int(decisions["pixels"]), int(decisions["channels"])
    words, columns = step_words(cut.words), -(-channels // amx_code.COLUMNS)
    steps = cut.total // words
    instructions = sum(_instruction_cycles(rows) for rows in (pixels - pixels // 2, pixels // 2))
    busy = steps * max(columns * instructions, (pixels + words * columns) / 2)
    end = 60 + 3 * pixels * columns
    covered = (3 + round_up(g.out_width, pixels) / g.out_width) / 4
    gathered = 4 * cut.total / 16 / spec.out_channels if decisions["pad"] == GATHER else 0
    return float((busy + end) / (pixels * channels) * covered + gathered)


def _instruction_cycles(rows: int) -> float:
    """Fitted to what amx.py's docstring says."""
    return max(9.5, 4 + 0.75 * rows)


def step_words(words: int) -> int:
    """Words of a step: the most that divide a run and fit a tile register."""
    return max(count for count in range(1, _MOST_WORDS + 1) if words % count == 0)


def apply(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """Schedule `compute.dot_conv2d.direct`; raises nothing for legal decisions."""
    block, cut, gather = (
        int(decisions["channels"]),
        conv2d_dot.cut(spec),
        decisions["pad"] == GATHER,
    )
    step = step_words(cut.words)
    name, definition = amx_code.tile(spec.dtype, block, step)
    tensors = conv2d_dot.direct(spec, block, operand=None, gather=gather)
    loops = Loops(tvm.IRModule({"main": prim_func(tensors)}))
    tile = loops.get_sblock("conv")

    def reduction(job: Any) -> Any:
        if not amx_code.can(spec.dtype, machine):
            return _rehearse(loops, tile)
        loops.annotate(job, JOB, name)
        outermost = loops.get_loops(tile)[-8]
        loops.annotate(outermost, TILE, name)
        loops.annotate(outermost, CUT, [step, cut.values, block])
        return outermost

    g = _in_rows(spec, decisions["pad"])
    if gather:
        loops.parallel(loops.get_loops(loops.get_sblock("padded"))[0])
        decisions = {**decisions, "rows": 1, "pad": "image"}
    copied = not gather and conv2d_dot.is_copied(spec, g, operand=None)
    tiled.schedule(loops, tile, spec, g, decisions, copied, reduction)
    packed = conv2d_dot.packed_filter_shape(spec, block, operand=None)
    pack = prim_func(conv2d_dot.pack(spec, block, operand=None))
    return function(spec, loops.mod["main"], pack, packed, definition)


def _rehearse(loops: Loops, tile: Any) -> Any:
    """The same tiles and memory without the instruction, for hosts that lack it."""
    n, h, w, o, kh, kw, ki, r = loops.get_loops(tile)[-8:]
    loops.reorder(kh, kw, ki, r, n, h, w, o)
    loops.vectorize(o)
    loops.vectorize(loops.get_loops(loops.decompose_reduction(tile, kh))[-1])
    return r


TILES = Schedule("x86.conv2d.amx", accepts, knobs, legal, default, apply, preferred)
SCHEDULES = (TILES,)
