"""Dense convolution on x86: one register tile of pixels x channels, weights packed to match.

THE TILE

A tile holds ``pixels`` output pixels x ``channels`` output channels in registers. For every element of
the reduction it loads the channels' weights (nv = channels / lanes vectors), broadcasts one input value
per pixel, and does pixels * nv multiply-adds:

    registers   pixels * nv accumulators + nv weights + 1 broadcast
    loads/FMA   (pixels + nv) / (pixels * nv), which must stay under load ports / FMA ports = 1
    latency     pixels * nv accumulators >= FMA latency * ports = 8, else the chain of adds shows

AVX-512 (32 registers): 12 x 2 vectors = 24 + 2 + 1 = 27 registers, 0.58 loads/FMA;
                         6 x 4 vectors = 24 + 4 + 1 = 29 registers, 0.42 loads/FMA.
AVX2 (16 registers):     4 x 3 vectors = 12 + 3 + 1 = 16 registers, 0.58 loads/FMA;
                         6 x 2 vectors = 12 + 2 + 1 = 15 registers, 0.67 loads/FMA.

The last tile of a row may be ragged: it is compiled for itself and computes nothing in vain. A 1x1
convolution of stride 1 has one long row of all pixels.

Measured, Sapphire Rapids, one thread, 2026-11-22 (docs/measured.md): ResNet-50's 1x1 and 3x3 stride-1
layers at 56, 28 and 14 reach 83 to 94 % of the FMA peak with the default decisions, 93 to 102 % of what
the same multiply-adds reach when L1 feeds them.

THE LOOPS

    for job (image, band of rows)            parallel
      for block of channels | pixel tile     "weights_outer": a panel of weights stays in cache
        for pixel tile | block of channels   "pixels_outer": a strip of pixels does
          for kh, kw, ci                     the tile's accumulators never leave their registers
          epilogue, store

With "prefetch" each step of the reduction also asks for a share of the next block's weights, which then
are in the second-level cache when their turn comes (prefetching.py); for filters that are read from memory.

THE PADDING, knob "pad"

    image    data is copied into a padded image first: 1 to 3 % of a 3x3 layer with 64 channels
    rows     every job copies its band of rows, so that it is still in the cache when it is read
    none     nothing is copied: tiles at the border are compiled for themselves, without the taps that
             lie in the padding (lowering.specialise_tiles); large images with few channels like it

Where the layout is NCHW, or no good block divides the channels of a group, ``conv`` is stored with its
channels padded and ``out`` is a loop nest of its own: one more pass over the output, any shape right.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.compute import conv2d
from tvmconv.compute.geometry import Geometry, geometry, round_up
from tvmconv.hardware import Choice, Decisions, Function, Knob, Machine, Schedule
from tvmconv.lowering.interface import function, prim_func
from tvmconv.lowering.prefetching import LINE_BYTES
from tvmconv.problem.rules import ITEM_BYTES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import dense as tiled
from tvmconv.schedules.shared import dense_stages, tile_costs
from tvmconv.schedules.shared.dense import PIXELS_OUTER, WEIGHTS_OUTER

# Multiply-adds of one tile with pad "none", which unrolls all taps: about 8 KiB of code for 1024.
# A 7x7 stem unrolled 3500 times took 7 s to compile and ran at two thirds of the speed (2026-11).
_MOST_UNROLLED = 1024


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Every conv2d with an output."""
    return spec.op == "conv2d" and not spec.is_empty


def channel_blocks(spec: ConvSpec, machine: Machine) -> list[int]:
    """Widths of the packed filter worth trying: up to four vectors, exact divisors first.

    Four vectors, because five leave an AVX-512 tile too few pixels (5 x 5 + 5 + 1 = 31 registers is
    the last that fits), and two rows of AVX2's sixteen registers hold at most three.
    """
    group, _ = conv2d.filter_blocks(spec, 1)
    lanes = machine.lanes(spec.accumulator_dtype)
    widest = 4 * lanes
    exact = [width for width in range(lanes, widest + 1, lanes) if group % width == 0]
    # Half vectors: 24, 40 and 72 channels are not multiples of 16, but of 8.
    halves = [w for w in range(lanes // 2, widest + 1, max(lanes // 2, 1)) if group % w == 0]
    whole = [group] if group <= widest else []
    found = sorted({*exact, *halves, *whole}, reverse=True)
    if not any(2 * width >= min(lanes, group) for width in found):
        found = []
    return found or [lanes, 2 * lanes]


def knobs(spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile, the order of its two outer loops, how much is unrolled, and where padding goes."""
    g = geometry(spec)
    group_in = g.in_channels // g.groups
    unrolls = [u for u in (1, 2, 4) if group_in % u == 0]
    if group_in <= 4:
        unrolls = [group_in]  # a stem's channels: a loop of three would be all overhead
    return (
        Knob("channels", tuple(channel_blocks(spec, machine))),
        Knob("pixels", tuple(tile_costs.pixel_tiles(g.out_width, machine.vector_registers - 2))),
        Knob("order", (WEIGHTS_OUTER, PIXELS_OUTER)),
        Knob("unroll", tuple(unrolls)),
        Knob("pad", dense_stages.pads(spec, g)),
        Knob("rows", tuple(tile_costs.row_bands(g.out_height))),
        *((Knob("prefetch", (1, 0)),) if _fetches_weights(spec, machine) else ()),
    )


def legal(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """The tile fits the registers, its code, nine times at the border, the cache; and there are jobs.

    Registers: accumulators, one vector per weight, one broadcast.
    """
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
    return pixels == 1 or pixels * vectors + vectors + 1 <= machine.vector_registers


def default(spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    """The tile with the least estimated time per multiply-add, and an order that spares the caches."""
    g = geometry(spec)
    space = {knob.name: knob.candidates for knob in knobs(spec, machine)}
    lanes = machine.lanes(spec.accumulator_dtype)

    def cost(point: Decisions) -> float:
        channels = int(point["channels"])
        return tile_cost(spec, machine, int(point["pixels"]), channels, -(-channels // lanes))

    points: list[dict[str, Choice]] = [
        {"channels": channels, "pixels": pixels}
        for channels in space["channels"]
        for pixels in space["pixels"]
    ]
    rest: dict[str, Choice] = {
        "order": WEIGHTS_OUTER if streams_weights(spec, machine) else PIXELS_OUTER,
        "unroll": space["unroll"][-1],
        "pad": "image",
        "rows": space["rows"][0],
    }
    if "prefetch" in space:
        rest["prefetch"] = 0
    roomy = [p for p in points if _roomy(spec, machine, {**rest, **p})]
    if not roomy:  # too few blocks of channels to share out
        rest["order"] = PIXELS_OUTER
        roomy = [p for p in points if _roomy(spec, machine, {**rest, **p})]
    best = min(roomy, key=cost)
    if "prefetch" in space:
        rest["prefetch"] = int(_waits_for_weights(spec, {**rest, **best}))
    if "rows" in space["pad"] and _is_stem(g, machine, spec):
        # Bands of rows that are still in the cache when they are read; each is a job.
        banded: dict[str, Choice] = {**rest, **best, "pad": "rows", "rows": space["rows"][-1]}
        if len(space["rows"]) > 1:
            banded["rows"] = space["rows"][1]
        if legal(spec, machine, banded):
            return banded
    unpadded: dict[str, Choice] = {**rest, **best, "pad": "none"}
    # Rows of several images have no number of their own to specialise by.
    worthwhile = "none" in space["pad"] and g.batch == 1 and legal(spec, machine, unpadded)
    return unpadded if worthwhile else {**rest, **best}


def tile_cost(spec: ConvSpec, machine: Machine, pixels: int, channels: int, vectors: int) -> float:
    """Estimate cycles per useful vector multiply-add of a tile whose channels take ``vectors``."""
    g, (group, _) = geometry(spec), conv2d.filter_blocks(spec, 1)
    # A ragged tile of pixels is specialised and computes nothing in vain, lanes do.
    useful = group / round_up(group, channels)
    useful *= (3 + g.out_width / round_up(g.out_width, pixels)) / 4
    whole = channels / machine.lanes(spec.accumulator_dtype)
    return float(tile_costs.cycles_per_fma(machine, pixels, vectors, whole) / useful)


def _is_stem(g: Geometry, machine: Machine, spec: ConvSpec) -> bool:
    """Few input channels: columns and channels are unrolled together."""
    return g.in_channels // g.groups < machine.lanes(spec.accumulator_dtype)


def _roomy(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """Whether the tile is legal and LLVM 22 keeps it in registers without spilling.

    It does so to the last register for tiles of two to four whole vectors, but wants three to spare for
    one vector and for ragged ones: 14 x 24 on AVX-512 (16 + 8) makes 20 stack accesses per 112
    multiply-adds, 14 x 8 on AVX2 24 per 56 (counted in the assembly, 2026-11). In the straight code of
    a stem it keeps half the registers busy with loads: 16 accumulators run at 82 to 90 % of what L1 can
    feed, 24 and 28 at 55 %.
    """
    channels, pixels = int(decisions["channels"]), int(decisions["pixels"])
    vectors = tile_costs.vectors(channels, machine, spec.accumulator_dtype)
    ragged = channels % machine.lanes(spec.accumulator_dtype) != 0
    spare = 3 if ragged or vectors == 1 else 0
    if _is_stem(geometry(spec), machine, spec):
        spare = machine.vector_registers // 2 - vectors - 1
    roomy = pixels * vectors + vectors + 1 + spare <= machine.vector_registers
    return (roomy or pixels == 1) and legal(spec, machine, decisions)


def streams_weights(spec: ConvSpec, machine: Machine) -> bool:
    """Whether the filter of a group is too large to be read again for every tile of pixels.

    While it fits three quarters of the second-level cache, "pixels_outer" is 3 to 10 % faster on
    ResNet-50's 1x1 layers (Sapphire Rapids, 2026-11): the data of a tile stays in the first level.
    """
    group, _ = conv2d.filter_blocks(spec, 1)
    weights = spec.reduction_length * group * ITEM_BYTES[spec.filter_dtype]
    return 4 * weights > 3 * machine.l2_bytes


def _fetches_weights(spec: ConvSpec, machine: Machine) -> bool:
    """Whether to fetch the next block of weights while one is used.

    ResNet-50's 7x7 layers, in turn (Sapphire Rapids, 2026-11): 1x1 512 -> 2048 takes 568 us in place of 753,
    2048 -> 512 566 of 635, 3x3 1119 of 1212.
    """
    weights = spec.reduction_length * spec.out_channels * ITEM_BYTES[spec.filter_dtype]
    return bool(tile_costs.is_far(weights, machine))


def _waits_for_weights(spec: ConvSpec, decisions: Decisions) -> bool:
    """Whether few tiles use a block of weights, so that each step has a line of the next one to fetch.

    With more tiles most of the requests are repetitions, which cost a load each: tuning ResNet-50's layers
    with stride 2 and 14x14 outputs chose to do without (2026-11).
    """
    images = spec.batch * spec.out_height * spec.out_width
    uses = -(-images // int(decisions["pixels"]))
    step_bytes = (
        int(decisions["unroll"]) * int(decisions["channels"]) * ITEM_BYTES[spec.filter_dtype]
    )
    return decisions["order"] == WEIGHTS_OUTER and step_bytes >= 0.75 * LINE_BYTES * uses


def apply(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """Schedule `compute.conv2d.direct`; raises nothing for legal decisions."""
    block, g = int(decisions["channels"]), geometry(spec)
    loops = Loops(tvm.IRModule({"main": prim_func(conv2d.direct(spec, block, widen=True))}))
    tile = loops.get_sblock("conv")

    def reduction(_job: Any) -> Any:
        unroll_kernel = decisions["pad"] == "none"
        return _schedule_tile(loops, tile, int(decisions["unroll"]), g, unroll_kernel)

    inlined = decisions["pad"] == "none"
    if inlined:
        loops.compute_inline(loops.get_sblock("padded"))
    copied = dense_stages.is_copied(spec, g) and not inlined
    tiled.schedule(loops, tile, spec, g, decisions, copied, reduction)
    packed = conv2d.packed_filter_shape(spec, block)
    pack = prim_func(conv2d.pack(spec, block, widen=True))
    return function(spec, loops.mod["main"], pack, packed)


def _schedule_tile(loops: Loops, tile: Any, unroll: int, g: Geometry, unroll_kernel: bool) -> Any:
    """Reduction outside, the whole tile unrolled inside it, its channels one vector.

    Returns the innermost loop of the reduction that is not unrolled.
    """
    n, h, w, o, kh, kw, ci = loops.get_loops(tile)[-7:]
    ci_outer, ci_inner = loops.split(ci, [None, unroll])
    loops.reorder(kh, kw, ci_outer, ci_inner, n, h, w, o)
    for loop in (ci_inner, n, h, w):
        loops.unroll(loop)
    if unroll_kernel:
        loops.unroll(kh)  # every tap by its number, so that those in the padding vanish
    if unroll_kernel or g.in_channels // g.groups == unroll:
        loops.unroll(kw)  # a stem: 3 channels x 3 columns are one contiguous run of 9 values
    loops.vectorize(o)
    init = loops.decompose_reduction(tile, kh)
    *zeroed, lanes = loops.get_loops(init)[-4:]
    for loop in zeroed:
        loops.unroll(loop)
    loops.vectorize(lanes)
    return ci_outer


DIRECT = Schedule("x86.conv2d.direct", accepts, knobs, legal, default, apply)
SCHEDULES = (DIRECT,)
