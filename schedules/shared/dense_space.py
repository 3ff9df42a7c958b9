"""Dense convolution's decisions on any CPU: which there are, which go together, which to begin with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from tvmconv.compute.conv2d import filter_blocks
from tvmconv.compute.geometry import geometry, round_up
from tvmconv.hardware import Choice, Decisions, Function, Knob, Machine, Schedule
from tvmconv.problem.rules import ITEM_BYTES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import code_size, dense, dense_stages, depthwise_space, tile_costs
from tvmconv.schedules.shared.dense import PIXELS_OUTER, WEIGHTS_OUTER, DenseDecisions
from tvmconv.schedules.shared.typed import read


def _always(*_: object) -> bool:
    return True


def _unrolled(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> int:
    """Multiply-adds of a tile's code: of all taps without padding, of a row of taps for a stem."""
    steps = tile.unroll
    if tile.pad == "none":
        steps *= spec.kernel_height * spec.kernel_width
    elif tile.unroll == spec.filter_shape[2]:
        steps *= spec.kernel_width
    vectors = tile_costs.vectors(tile.channels, machine, spec.accumulator_dtype)
    return int(code_size.unrolled(tile.pixels, steps, vectors))


@dataclass(frozen=True)
class Instructions:
    """What differs from one kind of multiply-adds to another.

    Attributes:
        blocks: channels of a tile that are worth trying.
        lengths: pixels of a tile that are.
        unrolls: steps of the reduction to unroll; None where there is no such knob.
        fits: whether the registers hold a tile.
        cycles: estimated cycles of a tile for a unit of useful work.
        apply: the scheduled function.
        pads: where the copy of the data may go; by default as for `compute.conv2d.widened` data.
        jobs: parallel jobs that a tile leaves, one for each block of channels and band of rows.
        prefetches: whether to begin with fetching the next block's weights, decided for filters that are
            read from behind the second-level cache; None where there is no such knob.
        roomy: whether to begin with a tile, of those that are legal.
        better: tiles to begin with in place of the one with the least cycles, the first that is legal.
        unrolled: multiply-adds of a tile's code.
    """

    blocks: Callable[[ConvSpec, Machine], Sequence[int]]
    lengths: Callable[[ConvSpec, Machine], Sequence[int]]
    fits: Callable[[ConvSpec, Machine, DenseDecisions], bool]
    cycles: Callable[[ConvSpec, Machine, DenseDecisions], float]
    apply: Callable[[ConvSpec, Machine, DenseDecisions], Function]
    pads: Callable[[ConvSpec, Machine], Sequence[Choice]] = lambda spec, _machine: (
        dense_stages.pads(spec)
    )
    unrolls: Callable[[ConvSpec, Machine], Sequence[int]] | None = None
    jobs: Callable[[ConvSpec, DenseDecisions], int] = dense.jobs
    prefetches: Callable[[ConvSpec, DenseDecisions], bool] | None = None
    roomy: Callable[[ConvSpec, Machine, DenseDecisions], bool] = _always
    better: Callable[[ConvSpec, Machine, DenseDecisions], Sequence[DenseDecisions]] = (
        lambda _spec, _machine, _tile: ()
    )
    unrolled: Callable[[ConvSpec, Machine, DenseDecisions], int] = _unrolled


def accepts(spec: ConvSpec, _machine: Machine) -> bool:
    """Every conv2d with an output."""
    return spec.op == "conv2d" and not spec.is_empty


def schedule(
    name: str,
    by: Instructions,
    accepts: Callable[[ConvSpec, Machine], bool] = accepts,
    preferred: Callable[[ConvSpec, Machine], bool] = _always,
) -> Schedule:
    """Return the schedule of these instructions under a pack's name.

    What a depthwise convolution computes better is left to that.
    """
    return Schedule(
        name,
        accepts,
        partial(knobs, by),
        partial(legal, by),
        partial(default, by),
        partial(apply, by),
        lambda spec, machine: (
            not depthwise_space.preferred(spec, machine) and preferred(spec, machine)
        ),
    )


def knobs(by: Instructions, spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile, the order of its two outer loops, how much is unrolled, where padding goes, and jobs."""
    fetches = by.prefetches is not None and _is_far(spec, machine)
    return (
        Knob("channels", tuple(by.blocks(spec, machine))),
        Knob("pixels", tuple(by.lengths(spec, machine))),
        Knob("order", (WEIGHTS_OUTER, PIXELS_OUTER)),
        *((Knob("unroll", tuple(by.unrolls(spec, machine))),) if by.unrolls else ()),
        Knob("pad", tuple(by.pads(spec, machine))),
        Knob("rows", tuple(tile_costs.row_bands(geometry(spec).out_height))),
        *((Knob("prefetch", (1, 0)),) if fetches else ()),
    )


def _is_far(spec: ConvSpec, machine: Machine) -> bool:
    """Whether the filter is read from behind the second-level cache.

    ResNet-50's 7x7 layers, fetched before and not, in turn (Sapphire Rapids, 2026-11): 1x1 512 -> 2048 takes
    568 us in place of 753, 2048 -> 512 566 of 635, 3x3 1119 of 1212.
    """
    weights = spec.reduction_length * spec.out_channels * ITEM_BYTES[spec.filter_dtype]
    return bool(tile_costs.is_far(weights, machine))


def streams_weights(spec: ConvSpec, machine: Machine) -> bool:
    """Whether the filter of a group is too large to be read again for every tile of pixels.

    While it fits three quarters of the second-level cache, "pixels_outer" is 3 to 10 % faster on
    ResNet-50's 1x1 layers (Sapphire Rapids, 2026-11): the data of a tile stays in the first level.
    """
    group, _ = filter_blocks(spec, 1)
    weights = spec.reduction_length * group * ITEM_BYTES[spec.filter_dtype]
    return 4 * weights > 3 * machine.cpu.l2_bytes


def legal(by: Instructions, spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """The tile fits the registers, its code, nine times at the border, the cache; and there are jobs."""
    return _is_legal(by, spec, machine, read(DenseDecisions, decisions))


def _is_legal(by: Instructions, spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> bool:
    smallest = tile.pixels == 1 and tile.pad != "none"
    if not smallest and by.unrolled(spec, machine, tile) > code_size.MOST_DENSE:
        return False
    shared_out = tile.by_weights or tile.pad == "rows"
    if shared_out and by.jobs(spec, tile) < tile_costs.LEAST_JOBS:
        return False
    if tile.prefetch and not tile.by_weights:
        return False
    return by.fits(spec, machine, tile)


def default(by: Instructions, spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    """The tile with the least estimated time per multiply-add, and an order that spares the caches."""
    found = best(by, spec, machine)
    names = [knob.name for knob in knobs(by, spec, machine)]
    if by.prefetches and "prefetch" in names:
        found = replace(found, prefetch=int(by.prefetches(spec, found)))
    better = by.better(spec, machine, found)
    chosen = next((tile for tile in better if _is_legal(by, spec, machine, tile)), found)
    return {name: getattr(chosen, name) for name in names}


def best(by: Instructions, spec: ConvSpec, machine: Machine) -> DenseDecisions:
    """The legal tile with the least estimated time per multiply-add."""
    order = WEIGHTS_OUTER if streams_weights(spec, machine) else PIXELS_OUTER
    usable = _usable(by, spec, machine, order)
    if not usable:  # too few blocks of channels to share out
        usable = _usable(by, spec, machine, PIXELS_OUTER)
    return min(usable, key=lambda tile: by.cycles(spec, machine, tile))


def is_cheaper(by: Instructions, other: Instructions, spec: ConvSpec, machine: Machine) -> bool:
    """Whether the best tile is estimated to take a tenth less than the other's; they are no more exact."""
    costs = [each.cycles(spec, machine, best(each, spec, machine)) for each in (by, other)]
    return costs[0] < 0.9 * costs[1]


def divisors(count: int, most: int) -> list[int]:
    """Those up to ``most``, the largest first."""
    return [each for each in range(most, 0, -1) if count % each == 0]


def _usable(by: Instructions, spec: ConvSpec, machine: Machine, order: str) -> list[DenseDecisions]:
    """Tiles to begin with, with as much unrolled as may be; `cycles` says nothing of bands and borders."""
    pads = [str(pad) for pad in by.pads(spec, machine) if pad not in ("rows", "none")]
    unrolls = sorted(by.unrolls(spec, machine), reverse=True) if by.unrolls else [1]
    whole = tile_costs.row_bands(geometry(spec).out_height)[0]
    tiles = (
        DenseDecisions(channels, pixels, order, pad, whole, unroll)
        for channels, pixels, unroll, pad in product(
            by.blocks(spec, machine), by.lengths(spec, machine), unrolls, pads
        )
    )
    return [
        tile
        for tile in tiles
        if by.roomy(spec, machine, tile) and _is_legal(by, spec, machine, tile)
    ]


def cycles_per_fma(
    spec: ConvSpec,
    machine: Machine,
    tile: DenseDecisions,
    vectors: int | None = None,
    overheads: tile_costs.Overheads = tile_costs.OVERHEADS,
) -> float:
    """Estimate cycles per useful multiply-add of vectors of weights by one number of data.

    The channels of a tile take ``vectors``, as many as hold them if that is not said.
    """
    g, (group, _) = geometry(spec), filter_blocks(spec, 1)
    lanes = machine.cpu.lanes(spec.accumulator_dtype)
    # A ragged tile of pixels is specialised and computes nothing in vain, lanes do.
    useful = group / round_up(group, tile.channels)
    useful *= (3 + g.out_width / round_up(g.out_width, tile.pixels)) / 4
    held = tile_costs.pieces(tile.channels, lanes) if vectors is None else vectors
    useful_vectors = tile.channels / lanes
    cycles = tile_costs.cycles_per_fma(machine, tile.pixels, held, useful_vectors, overheads)
    return float(cycles / useful)


def apply(by: Instructions, spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """The scheduled function; raises nothing for legal decisions."""
    return by.apply(spec, machine, read(DenseDecisions, decisions))
