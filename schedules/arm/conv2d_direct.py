"""Dense convolution on ARM: one register tile of pixels x channels, multiplied by lanes.

THE TILE

A tile holds ``pixels`` output pixels x ``channels`` output channels in registers. Four input channels of a
pixel come with one load, and each of them multiplies the weights' vectors from its lane (``fmla v0.4s,
v1.4s, v2.s[3]``), so nothing is broadcast. With nv = channels / 4, for four steps of the reduction:

    registers     pixels * nv accumulators + pixels of data + nv weights
    instructions  4 * pixels * nv multiply-adds, pixels loads, 2 * nv pair loads of weights, 4 of loop

    7 x 12     21 + 7 + 3 = 31 registers, 84 of 84 + 7 + 6 + 4 = 83 % multiply-adds
    5 x 16     20 + 5 + 4 = 29            80 of 80 + 5 + 8 + 4 = 82 %
    8 x  8     16 + 8 + 2 = 26            64 of 64 + 8 + 4 + 4 = 80 %

and 1 to 2 % more where the loop is unrolled by eight.

The last tile of a row may be ragged: it is compiled for itself and computes nothing in vain. A 1x1
convolution of stride 1 has one long row of all pixels.

BYTES without dot products (dot_conv2d.py) are widened to 16 bits, data once, in the copy that pads it.
SMLAL by a lane multiplies four at a time, as FMLA does, and a load brings eight: 88 % of 1x1, 128 -> 64
channels, are multiply-adds (counted, Cortex-A72, 2026-11), where float32 has 83 %.

A STEM has too few channels to fill a vector; there the columns and channels of a tile's window, which lie
side by side, are loaded together, once for each row of the window.

THE LOOPS

    for job (image, band of rows)            parallel
      for block of channels | pixel tile     "weights_outer": a panel of weights stays in cache
        for pixel tile | block of channels   "pixels_outer": a strip of pixels does
          for kh, kw, ci                     the tile's accumulators never leave their registers
          epilogue, store

With "prefetch" each step of the reduction also asks for a share of the next block's weights
(prefetching.py); for filters that are read from behind the second-level cache.

THE PADDING, knob "pad"

    image    data is copied into a padded image first: two instructions for eight values
    rows     every job copies its band of rows, so that it is still in the cache when it is read
    none     nothing is copied: tiles at the border are compiled for themselves
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.compute import conv2d
from tvmconv.compute.geometry import geometry
from tvmconv.hardware import Choice, Decisions, Function, Knob, Machine, Schedule
from tvmconv.lowering.interface import function, prim_func
from tvmconv.problem.rules import ITEM_BYTES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.arm import dense_costs
from tvmconv.schedules.shared import bias_start, dense_stages, tile_costs
from tvmconv.schedules.shared import dense as tiled
from tvmconv.schedules.shared.dense import PIXELS_OUTER, WEIGHTS_OUTER

# Multiply-adds of one tile with pad "none", which unrolls all taps: 4 KiB of code for 1024.
_MOST_UNROLLED = 1024


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Every conv2d with an output."""
    return spec.op == "conv2d" and not spec.is_empty


def channel_blocks(spec: ConvSpec, machine: Machine) -> list[int]:
    """Widths of the packed filter worth trying: one to five vectors, exact divisors where there are any."""
    group, _ = conv2d.filter_blocks(spec, 1)
    lanes = machine.lanes(spec.accumulator_dtype)
    exact = [w for w in range(5 * lanes, 0, -lanes) if group % w == 0]
    halves = [w for w in range(5 * lanes, 0, -max(lanes // 2, 1)) if group % w == 0]
    whole = [group] if group <= 2 * lanes else []
    return exact or halves or whole or [2 * lanes, lanes]


def unrolls(spec: ConvSpec, machine: Machine) -> list[int]:
    """Input channels a step: whole vectors of data, so that each comes with one load, where they divide."""
    group_in = spec.filter_shape[2]
    lanes = machine.lanes(spec.accumulator_dtype)
    if is_stem(spec, machine):
        return [group_in]
    return [u for u in (2 * lanes, lanes, lanes // 2, 1) if u and group_in % u == 0][:2]


def is_stem(spec: ConvSpec, machine: Machine) -> bool:
    """Few input channels: columns and channels are unrolled together."""
    return spec.filter_shape[2] < machine.lanes(spec.accumulator_dtype)


def knobs(spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile, the order of its two outer loops, how much is unrolled, and where padding goes."""
    g = geometry(spec)
    far = tile_costs.is_far(
        spec.reduction_length * spec.out_channels * ITEM_BYTES[spec.filter_dtype], machine
    )
    return (
        Knob("channels", tuple(channel_blocks(spec, machine))),
        Knob("pixels", tuple(tile_costs.pixel_tiles(g.out_width, machine.vector_registers - 8))),
        Knob("order", (WEIGHTS_OUTER, PIXELS_OUTER)),
        Knob("unroll", tuple(unrolls(spec, machine))),
        Knob("pad", dense_stages.pads(spec, g)),
        Knob("rows", tuple(tile_costs.row_bands(g.out_height))),
        *((Knob("prefetch", (1, 0)),) if far else ()),
    )


def registers(spec: ConvSpec, machine: Machine, decisions: Decisions) -> int:
    """Vector registers that a tile wants: accumulators, the data of its pixels, the weights of a step."""
    vectors = tile_costs.vectors(int(decisions["channels"]), machine, spec.accumulator_dtype)
    pixels = int(decisions["pixels"])
    data = pixels
    if is_stem(spec, machine):  # overlapping windows, one row of them
        values = ((pixels - 1) * spec.strides[1] + spec.kernel_width) * spec.filter_shape[2]
        data = min(pixels, tile_costs.vectors(values, machine, spec.accumulator_dtype))
    return pixels * vectors + data + vectors


def legal(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """The tile fits the registers, its code, nine times at the border, the cache; and there are jobs."""
    vectors = tile_costs.vectors(int(decisions["channels"]), machine, spec.accumulator_dtype)
    pixels, taps = int(decisions["pixels"]), spec.kernel_height * spec.kernel_width
    unrolled = taps * int(decisions["unroll"]) * pixels * vectors
    if decisions["pad"] == "none" and unrolled > _MOST_UNROLLED:
        return False
    by_weights = decisions["order"] == WEIGHTS_OUTER
    if (by_weights or decisions["pad"] == "rows") and tiled.jobs(
        spec, decisions
    ) < tile_costs.LEAST_JOBS:
        return False
    if decisions.get("prefetch") and not by_weights:
        return False
    return pixels == 1 or registers(spec, machine, decisions) <= machine.vector_registers


def default(spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    """The tile with the least estimated time per multiply-add, and an order that spares the caches."""
    space = {knob.name: knob.candidates for knob in knobs(spec, machine)}
    points: list[dict[str, Choice]] = [
        {"channels": channels, "pixels": pixels, "unroll": unroll}
        for channels in space["channels"]
        for pixels in space["pixels"]
        for unroll in space["unroll"]
    ]
    rest: dict[str, Choice] = {
        "order": WEIGHTS_OUTER if streams_weights(spec, machine) else PIXELS_OUTER,
        "pad": "image",
        "rows": space["rows"][0],
    }
    if "prefetch" in space:
        rest["prefetch"] = int(rest["order"] == WEIGHTS_OUTER)
    fitting = [p for p in points if _roomy(spec, machine, {**rest, **p})]
    if not fitting:  # too few blocks of channels to share out
        rest["order"] = PIXELS_OUTER
        if "prefetch" in space:
            rest["prefetch"] = 0
        fitting = [p for p in points if _roomy(spec, machine, {**rest, **p})]
    best = min(fitting, key=lambda p: cycles_per_fma(spec, machine, {**rest, **p}))
    return {**rest, **best}


def streams_weights(spec: ConvSpec, machine: Machine) -> bool:
    """Whether the filter of a group is too large to be read again for every tile of pixels."""
    group, _ = conv2d.filter_blocks(spec, 1)
    weights = spec.reduction_length * group * ITEM_BYTES[spec.filter_dtype]
    return 4 * weights > 3 * machine.l2_bytes


def _roomy(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """Whether the tile is legal, and a stem's leaves half of the registers to the loads.

    LLVM unrolls a stem's whole window, and two blocks of channels too, and keeps as much of the data as it
    can: of the instructions of MobileNetV2's stem 75 % are multiply-adds at 8 x 8, 53 % at 4 x 16; of
    ResNet-50's 88 and 82 % (counted, 2026-11).
    """
    if is_stem(spec, machine) and int(decisions["pixels"]) > 1:
        vectors = tile_costs.vectors(int(decisions["channels"]), machine, spec.accumulator_dtype)
        if vectors > 2 or 2 * vectors * int(decisions["pixels"]) > machine.vector_registers:
            return False
    return legal(spec, machine, decisions)


def cycles_per_fma(spec: ConvSpec, machine: Machine, decisions: Decisions) -> float:
    """Estimate cycles per useful vector multiply-add of a tile."""
    group, _ = conv2d.filter_blocks(spec, 1)
    lanes, unroll = machine.lanes(spec.accumulator_dtype), int(decisions["unroll"])
    cycles: float = dense_costs.tile_cycles(
        machine,
        pixels=int(decisions["pixels"]),
        channels=int(decisions["channels"]),
        unroll=unroll,
        lanes=lanes,
        values_per_load=lanes,
        steps=spec.reduction_length // unroll,
        out_width=geometry(spec).out_width,
        group=group,
    )
    return cycles


def apply(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """Schedule `compute.conv2d.direct`; raises nothing for legal decisions."""
    block, g = int(decisions["channels"]), geometry(spec)
    func, fused = (
        prim_func(conv2d.direct(spec, block, widen=True)),
        dense_stages.is_fused(spec, g, block),
    )
    if spec.bias and fused:
        func = bias_start.at_bias(func, lambda n, h, w, channel: channel)
    loops = Loops(tvm.IRModule({"main": func}))
    _schedule(loops, spec, machine, decisions)
    packed = conv2d.packed_filter_shape(spec, block)
    pack = prim_func(conv2d.pack(spec, block, widen=True))
    return function(spec, loops.mod["main"], pack, packed)


def _schedule(loops: Loops, spec: ConvSpec, machine: Machine, decisions: Decisions) -> None:
    g, stem, inlined = geometry(spec), is_stem(spec, machine), decisions["pad"] == "none"
    tile = loops.get_sblock("conv")
    # Before anything has a predicate: TVM caches reads of complete blocks only.
    data = loops.get_sblock("padded") if inlined else loops.cache_read(tile, 0, "local")
    reduction: list[Any] = []

    def arrange() -> None:
        reduction.extend(_schedule_tile(loops, tile, data, int(decisions["unroll"]), stem, inlined))
        if inlined:
            loops.set_scope(data, 0, "local")

    def reduce(_job: Any) -> Any:
        _zero_outside(loops, tile, reduction[0])
        return reduction[-1]

    copied = dense_stages.is_copied(spec, g) and not inlined
    tiled.schedule(loops, tile, spec, g, decisions, copied, reduce, arrange)


def _schedule_tile(
    loops: Loops, tile: Any, data: Any, unroll: int, stem: bool, unroll_kernel: bool
) -> list[Any]:
    """Reduction outside, the whole tile unrolled inside it, its channels one vector.

    ``data`` is loaded in vectors where a step, or a row of a stem's window, begins. Returns the loops of
    the reduction: the outermost and the innermost that is not unrolled.
    """
    n, h, w, o, kh, kw, ci = loops.get_loops(tile)[-7:]
    ci_outer, ci_inner = loops.split(ci, [None, unroll])
    loops.reorder(kh, kw, ci_outer, ci_inner, n, h, w, o)
    loops.compute_at(data, kh if stem else ci_outer, preserve_unit_loops=True)
    for loop in (ci_inner, n, h, w):
        loops.unroll(loop)
    if unroll_kernel:
        loops.unroll(kh)  # every tap by its number, so that those in the padding vanish
    if unroll_kernel or stem:
        loops.unroll(kw)
    loops.vectorize(o)
    *outer, column, channel = loops.get_loops(data)[-4:]
    if stem and not unroll_kernel:
        channel = loops.fuse(column, channel)
    else:
        outer.append(column)
    for loop in outer:
        loops.unroll(loop)
    loops.vectorize(channel)
    return [kh, kh if stem else ci_outer]


def _zero_outside(loops: Loops, tile: Any, reduction: Any) -> None:
    init = loops.decompose_reduction(tile, reduction)
    *zeroed, lanes = loops.get_loops(init)[-4:]
    for loop in zeroed:
        loops.unroll(loop)
    loops.vectorize(lanes)


DIRECT = Schedule("arm.conv2d.direct", accepts, knobs, legal, default, apply)
SCHEDULES = (DIRECT,)
