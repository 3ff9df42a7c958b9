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

from dataclasses import replace

from tvmconv.compute.conv2d import filter_blocks
from tvmconv.compute.geometry import geometry
from tvmconv.hardware import Machine
from tvmconv.lowering.prefetching import LINE_BYTES
from tvmconv.problem.rules import ITEM_BYTES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import dense_broadcast, dense_space, dense_stages, tile_costs
from tvmconv.schedules.shared.dense import DenseDecisions


def _channel_blocks(spec: ConvSpec, machine: Machine) -> list[int]:
    """Widths of the packed filter worth trying: up to four vectors, exact divisors first.

    Four vectors, because five leave an AVX-512 tile too few pixels (5 x 5 + 5 + 1 = 31 registers is
    the last that fits), and two rows of AVX2's sixteen registers hold at most three.
    """
    group, _ = filter_blocks(spec, 1)
    lanes = machine.cpu.lanes(spec.accumulator_dtype)
    widest = 4 * lanes
    exact = [width for width in range(lanes, widest + 1, lanes) if group % width == 0]
    # Half vectors: 24, 40 and 72 channels are not multiples of 16, but of 8.
    halves = [w for w in range(lanes // 2, widest + 1, max(lanes // 2, 1)) if group % w == 0]
    whole = [group] if group <= widest else []
    found = sorted({*exact, *halves, *whole}, reverse=True)
    if not any(2 * width >= min(lanes, group) for width in found):
        found = []
    # An odd number in whole vectors, of which only the valid channels reach the output.
    padded = tile_costs.padded(group, lanes)
    if found and tile_costs.pieces(padded, lanes) < tile_costs.pieces(group, lanes):
        found.append(padded)
    return found or [lanes, 2 * lanes]


def lengths(spec: ConvSpec, machine: Machine) -> list[int]:
    """Pixels of a tile: two registers are left to one vector of weights and a broadcast."""
    return tile_costs.pixel_tiles(geometry(spec).out_width, machine.cpu.vector_registers - 2)


def _unrolls(spec: ConvSpec, _machine: Machine) -> list[int]:
    group_in = spec.filter_shape[2]
    if group_in <= 4:
        return [group_in]  # a stem's channels: a loop of three would be all overhead
    return [u for u in (1, 2, 4) if group_in % u == 0]


def _registers(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> int:
    """Accumulators, one vector per weight, one broadcast."""
    vectors: int = tile_costs.vectors(tile.channels, machine, spec.accumulator_dtype)
    return tile.pixels * vectors + vectors + 1


def _fits(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> bool:
    return tile.pixels == 1 or _registers(spec, machine, tile) <= machine.cpu.vector_registers


def _roomy(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> bool:
    """Whether LLVM 22 keeps the tile in registers without spilling.

    It does so to the last register for tiles of two to four whole vectors, but wants three to spare for
    one vector and for ragged ones: 14 x 24 on AVX-512 (16 + 8) makes 20 stack accesses per 112
    multiply-adds, 14 x 8 on AVX2 24 per 56 (counted in the assembly, 2026-11). In the straight code of
    a stem it keeps half the registers busy with loads: 16 accumulators run at 82 to 90 % of what L1 can
    feed, 24 and 28 at 55 %.
    """
    vectors = tile_costs.vectors(tile.channels, machine, spec.accumulator_dtype)
    ragged = tile.channels % machine.cpu.lanes(spec.accumulator_dtype) != 0
    spare = 3 if ragged or vectors == 1 else 0
    if _is_stem(spec, machine):
        spare = machine.cpu.vector_registers // 2 - vectors - 1
    registers = _registers(spec, machine, tile) + spare
    return tile.pixels == 1 or registers <= machine.cpu.vector_registers


def _is_stem(spec: ConvSpec, machine: Machine) -> bool:
    """Few input channels: columns and channels are unrolled together."""
    return spec.filter_shape[2] < machine.cpu.lanes(spec.accumulator_dtype)


def _better(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> list[DenseDecisions]:
    """The tile with its padding elsewhere."""
    pads, g, found = dense_stages.pads(spec), geometry(spec), []
    if "rows" in pads and _is_stem(spec, machine):
        # Bands of rows that are still in the cache when they are read; each is a job.
        *_, rows = tile_costs.row_bands(g.out_height)[:2]
        found.append(replace(tile, pad="rows", rows=rows))
    if "none" in pads and dense_stages.sees_little(spec):
        found.insert(0, replace(tile, pad="none"))
    if "none" in pads and g.batch == 1:
        # Rows of several images have no number of their own to specialise by.
        found.append(replace(tile, pad="none"))
    return found


def _waits_for_weights(spec: ConvSpec, tile: DenseDecisions) -> bool:
    """Whether few tiles use a block of weights, so that each step has a line of the next one to fetch.

    With more tiles most of the requests are repetitions, which cost a load each: tuning ResNet-50's layers
    with stride 2 and 14x14 outputs chose to do without (2026-11). With a single one all weights are one
    stream, which the hardware fetches by itself: 25088 -> 1024 for one row reads 44 GB/s without and 15 with
    requests, 2048 -> 1000, from the third level, 113 and 88 (Zen 5, 2026-11).
    """
    uses = -(-spec.batch * spec.out_height * spec.out_width // tile.pixels)
    step_bytes = tile.unroll * tile.channels * ITEM_BYTES[spec.filter_dtype]
    return tile.by_weights and uses > 1 and step_bytes >= 0.75 * LINE_BYTES * uses


INSTRUCTIONS = dense_space.Instructions(
    blocks=_channel_blocks,
    lengths=lengths,
    unrolls=_unrolls,
    fits=_fits,
    roomy=_roomy,
    cycles=dense_space.cycles_per_fma,
    better=_better,
    prefetches=_waits_for_weights,
    apply=dense_broadcast.apply,
)
DIRECT = dense_space.schedule("x86.conv2d.direct", INSTRUCTIONS)
SCHEDULES = (DIRECT,)
