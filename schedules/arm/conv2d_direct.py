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

BYTES without dot products (conv2d_dot.py) are widened to 16 bits, data once, in the copy that pads it.
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
from tvmconv.hardware import Function, Machine
from tvmconv.lowering.interface import function, prim_func
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.arm import dense_costs
from tvmconv.schedules.shared import bias_start, dense_space, dense_stages, tile_costs
from tvmconv.schedules.shared import dense as tiled
from tvmconv.schedules.shared.dense import DenseDecisions


def _channel_blocks(spec: ConvSpec, machine: Machine) -> list[int]:
    """One to five vectors, exact divisors where there are any, else few channels in whole vectors."""
    group, _ = conv2d.filter_blocks(spec, 1)
    lanes = machine.cpu.lanes(spec.accumulator_dtype)
    exact = [w for w in range(5 * lanes, 0, -lanes) if group % w == 0]
    halves = [w for w in range(5 * lanes, 0, -max(lanes // 2, 1)) if group % w == 0]
    whole = [tile_costs.padded(group, lanes)] if group <= 2 * lanes else []
    return exact or halves or whole or [2 * lanes, lanes]


def lengths(spec: ConvSpec, machine: Machine) -> list[int]:
    """Pixels of a tile: eight registers are left to data and weights."""
    return tile_costs.pixel_tiles(geometry(spec).out_width, machine.cpu.vector_registers - 8)


def _unrolls(spec: ConvSpec, machine: Machine) -> list[int]:
    """Input channels a step: whole vectors of data, so that each comes with one load, where they divide."""
    group_in = spec.filter_shape[2]
    lanes = machine.cpu.lanes(spec.accumulator_dtype)
    if _is_stem(spec, machine):
        return [group_in]
    return [u for u in (2 * lanes, lanes, lanes // 2, 1) if u and group_in % u == 0][:2]


def _is_stem(spec: ConvSpec, machine: Machine) -> bool:
    """Few input channels: columns and channels are unrolled together."""
    return spec.filter_shape[2] < machine.cpu.lanes(spec.accumulator_dtype)


def _vectors(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> int:
    return tile_costs.vectors(tile.channels, machine, spec.accumulator_dtype)


def _registers(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> int:
    """Vector registers that a tile wants: accumulators, the data of its pixels, the weights of a step."""
    vectors, data = _vectors(spec, machine, tile), tile.pixels
    if _is_stem(spec, machine):  # overlapping windows, one row of them
        columns = (tile.pixels - 1) * spec.strides[1] + spec.kernel_width
        values = columns * spec.filter_shape[2]
        data = min(data, tile_costs.vectors(values, machine, spec.accumulator_dtype))
    return tile.pixels * vectors + data + vectors


def _fits(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> bool:
    return tile.pixels == 1 or _registers(spec, machine, tile) <= machine.cpu.vector_registers


def _roomy(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> bool:
    """Whether a stem's tile leaves half of the registers to the loads.

    LLVM unrolls a stem's whole window, and two blocks of channels too, and keeps as much of the data as it
    can: of the instructions of MobileNetV2's stem 75 % are multiply-adds at 8 x 8, 53 % at 4 x 16; of
    ResNet-50's 88 and 82 % (counted, 2026-11).
    """
    if tile.pixels == 1 or not _is_stem(spec, machine):
        return True
    vectors = _vectors(spec, machine, tile)
    return vectors <= 2 and 2 * vectors * tile.pixels <= machine.cpu.vector_registers


def _fetches(_spec: ConvSpec, tile: DenseDecisions) -> bool:
    return tile.by_weights


def _cycles(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> float:
    lanes = machine.cpu.lanes(spec.accumulator_dtype)
    steps = spec.reduction_length // tile.unroll
    return dense_costs.tile_cycles(spec, machine, tile, lanes, lanes, steps)


def apply(spec: ConvSpec, machine: Machine, decisions: DenseDecisions) -> Function:
    """Schedule `compute.conv2d.direct`; raises nothing for legal decisions."""
    block, g = decisions.channels, geometry(spec)
    func = prim_func(conv2d.direct(spec, block, widen=True))
    if spec.bias and dense_stages.is_fused(spec, g, block):
        func = bias_start.at_bias(func, lambda n, h, w, channel: channel)
    loops = Loops(tvm.IRModule({"main": func}))
    _schedule(loops, spec, machine, decisions)
    packed = conv2d.packed_filter_shape(spec, block)
    pack = prim_func(conv2d.pack(spec, block, widen=True))
    return function(spec, loops.mod["main"], pack, packed)


def _schedule(loops: Loops, spec: ConvSpec, machine: Machine, decisions: DenseDecisions) -> None:
    g, stem, inlined = geometry(spec), _is_stem(spec, machine), decisions.pad == "none"
    tile = loops.get_sblock("conv")
    # Before anything has a predicate: TVM caches reads of complete blocks only.
    data = loops.get_sblock("padded") if inlined else loops.cache_read(tile, 0, "local")
    reduction: list[Any] = []

    def arrange() -> None:
        reduction.extend(_schedule_tile(loops, tile, data, decisions.unroll, stem, inlined))
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


INSTRUCTIONS = dense_space.Instructions(
    blocks=_channel_blocks,
    lengths=lengths,
    unrolls=_unrolls,
    fits=_fits,
    roomy=_roomy,
    cycles=_cycles,
    prefetches=_fetches,
    apply=apply,
)
DIRECT = dense_space.schedule("arm.conv2d.direct", INSTRUCTIONS)
SCHEDULES = (DIRECT,)
