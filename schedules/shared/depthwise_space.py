"""Depthwise convolution's decisions on any CPU: which there are, which go together, which to begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tvmconv.compute.depthwise_conv2d import as_depthwise
from tvmconv.compute.geometry import round_up
from tvmconv.hardware import Choice, Decisions, Function, Knob, Machine, Schedule
from tvmconv.lowering.interface import with_interface
from tvmconv.problem.arguments import window_extent
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import tile_costs
from tvmconv.schedules.shared.depthwise import (
    INNER,
    INSIDE,
    MIDDLE,
    OUTER,
    OUTSIDE,
    DepthwiseDecisions,
    loops_over_taps,
    unrolls_taps,
)
from tvmconv.schedules.shared.typed import read

_ORDERS: Mapping[str, tuple[str, ...]] = {
    "order": (MIDDLE, INNER, OUTER),
    "taps": (INSIDE, OUTSIDE),
}


def _always(*_: object) -> bool:
    return True


def _nothing(_spec: ConvSpec, _machine: Machine) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Instructions:
    """What differs from one kind of multiply-adds to another.

    Attributes:
        widths: channels of a tile that are worth trying, the one to begin with first.
        columns, rows: those of a tile's outputs that are, where the output has as many.
        fits: whether registers hold a tile, and the cache its code, nine times at the border.
        cycles: estimated cycles of a tile for a unit of useful work.
        apply: the scheduled function.
        orders: what to begin with of "order" and "taps", as far as these are knobs.
        roomy: whether to begin with a tile, of those that are legal.
        phases: columns that cannot be in different tiles.
    """

    widths: Callable[[ConvSpec, Machine], Sequence[int]]
    columns: Sequence[int]
    rows: Sequence[int]
    fits: Callable[[ConvSpec, Machine, DepthwiseDecisions], bool]
    cycles: Callable[[ConvSpec, Machine, DepthwiseDecisions], float]
    apply: Callable[[ConvSpec, Machine, DepthwiseDecisions], Function]
    orders: Callable[[ConvSpec, Machine], Mapping[str, str]] = _nothing
    roomy: Callable[[ConvSpec, Machine, DepthwiseDecisions], bool] = _always
    phases: Callable[[ConvSpec], int] = lambda _spec: 1

    def columns_of(self, spec: ConvSpec) -> list[int]:
        """Columns of a tile; outputs that share words are in one."""
        phases = self.phases(spec)
        most = round_up(spec.out_width, phases)
        return [n for n in self.columns if n % phases == 0 and n <= most]

    def rows_of(self, spec: ConvSpec) -> list[int]:
        """Rows of a tile."""
        return [n for n in self.rows if n <= spec.out_height]


def accepts(spec: ConvSpec, _machine: Machine) -> bool:
    """Every depthwise_conv2d with an output."""
    return spec.op == "depthwise_conv2d" and not spec.is_empty


def preferred(spec: ConvSpec, _machine: Machine) -> bool:
    """Whether more channels lie side by side than a group has outputs, the lanes of a dense tile."""
    depthwise = as_depthwise(spec)
    return depthwise is not None and depthwise.multiplier <= depthwise.in_channels


def schedule(
    name: str, by: Instructions, accepts: Callable[[ConvSpec, Machine], bool] = accepts
) -> Schedule:
    """Return the schedule of these instructions under a pack's name.

    It takes a conv2d of one channel a group for the depthwise convolution that it is, all functions of
    ``by`` see that one.
    """

    def accepts_either(spec: ConvSpec, machine: Machine) -> bool:
        depthwise = as_depthwise(spec)
        return depthwise is not None and accepts(depthwise, machine)

    return Schedule(
        name,
        accepts_either,
        lambda spec, machine: knobs(by, _depthwise(spec), machine),
        lambda spec, machine, decisions: legal(by, _depthwise(spec), machine, decisions),
        lambda spec, machine: default(by, _depthwise(spec), machine),
        partial(apply, by),
        preferred,
    )


def _depthwise(spec: ConvSpec) -> ConvSpec:
    depthwise = as_depthwise(spec)
    assert depthwise is not None, spec.key  # noqa: S101 - only what is accepted comes here
    return depthwise


def knobs(by: Instructions, spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile, and the orders of the loops over tiles and of a tile's multiply-adds."""
    return (
        Knob("channels", tuple(by.widths(spec, machine))),
        Knob("columns", tuple(by.columns_of(spec))),
        Knob("rows", tuple(by.rows_of(spec))),
        *(Knob(name, _ORDERS[name]) for name in by.orders(spec, machine)),
    )


def legal(by: Instructions, spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """The tile fits; one of the fewest outputs always does."""
    return _is_legal(by, spec, machine, read(DepthwiseDecisions, decisions))


def _is_legal(by: Instructions, spec: ConvSpec, machine: Machine, tile: DepthwiseDecisions) -> bool:
    smallest = tile.rows == 1 and tile.columns == min(by.columns_of(spec))
    return smallest or by.fits(spec, machine, tile)


def default(by: Instructions, spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    """The legal tile of the first width with the least estimated time per multiply-add."""
    orders = by.orders(spec, machine)
    tiles = (
        DepthwiseDecisions(by.widths(spec, machine)[0], rows, columns, **orders)
        for columns in by.columns_of(spec)
        for rows in by.rows_of(spec)
    )
    usable = (
        tile
        for tile in tiles
        if by.roomy(spec, machine, tile) and _is_legal(by, spec, machine, tile)
    )
    best = min(usable, key=lambda tile: by.cycles(spec, machine, tile))
    return {name: getattr(best, name) for name in ("channels", "columns", "rows", *orders)}


def widths(channels: int, lanes: int, ragged: bool) -> list[int]:
    """One or two vectors or half a one, the width that takes the fewest instructions first.

    A ``ragged`` last tile is a vector of each power of two: 72 channels are four vectors and a half in place
    of nine halves (32x32: 6.7 us in place of 9.9; Zen 5, 2026-11).
    """

    def instructions(width: int) -> tuple[int, int]:
        tiles, rest = divmod(channels, width)
        return tiles * tile_costs.pieces(width, lanes) + rest.bit_count(), abs(width - lanes)

    fit = [w for w in (lanes, 2 * lanes, lanes // 2) if 0 < w <= channels]
    fit = [w for w in fit if ragged or channels % w == 0]
    if channels <= 2 * lanes:
        fit.append(channels)
    return sorted(set(fit), key=instructions) or [min(lanes, channels)]


def fits(spec: ConvSpec, machine: Machine, tile: DepthwiseDecisions, vectors: int) -> bool:
    """Whether a tile of so many vectors leaves an eighth of the registers free, and is short enough.

    Registers are accumulators, one column of inputs and a row of weights.
    """
    outputs = tile.rows * tile.columns * spec.multiplier
    if loops_over_taps(spec, tile.channels):
        return bool(8 * (outputs * vectors + 2) <= 7 * machine.cpu.vector_registers)
    live = outputs * vectors + spec.kernel_height + 2
    return 8 * live <= 7 * machine.cpu.vector_registers and unrolls_taps(spec, tile)


def window(spec: ConvSpec, tile: DepthwiseDecisions) -> tuple[int, int]:
    """Rows of inputs that a tile reads, and its inputs."""
    rows = (tile.rows - 1) * spec.strides[0] + window_extent(spec.kernel_height, spec.dilations[0])
    columns = (tile.columns - 1) * spec.strides[1] + window_extent(
        spec.kernel_width, spec.dilations[1]
    )
    # With dilation neighbouring windows may share nothing.
    taps = spec.kernel_height * spec.kernel_width
    return rows, min(rows * columns, tile.rows * tile.columns * taps)


def useful(spec: ConvSpec, tile: DepthwiseDecisions) -> float:
    """Share of a tile's efficiency that is left with ragged tiles at the edges.

    A ragged tile computes nothing in vain, it is specialised too; it only has fewer accumulators.
    """
    rows = round_up(spec.out_height, tile.rows)
    columns = round_up(spec.out_width, tile.columns)
    return float((3 + spec.out_height * spec.out_width / (rows * columns)) / 4)


def apply(by: Instructions, spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """The scheduled function; raises nothing for legal decisions."""
    made = by.apply(_depthwise(spec), machine, read(DepthwiseDecisions, decisions))
    if made.pack is None or spec.op == "depthwise_conv2d":
        return made
    pack = with_interface(made.pack, {"filter": spec.filter_shape}, frozenset({"packed"}))
    return replace(made, pack=pack)


def cycles_per_fma(
    spec: ConvSpec, machine: Machine, tile: DepthwiseDecisions, loads: int, brought: float = 0.0
) -> float:
    """Estimate cycles per useful vector multiply-add of a tile with so many vector loads.

    The largest of arithmetic, loads and the latency of the taps' chain, and those of bringing its data.
    """
    cpu, taps = machine.cpu, spec.kernel_height * spec.kernel_width
    fmas = tile.rows * tile.columns * spec.multiplier * taps
    cycles = max(fmas / cpu.fma_ports, loads / cpu.load_ports, taps * cpu.fma_latency) + brought
    # A load is not free even where ports suffice: an eighth each breaks ties toward fewer.
    return float((cycles + loads / 8) / fmas / useful(spec, tile))


def looped_loads(spec: ConvSpec, tile: DepthwiseDecisions) -> int:
    """Vector loads of a tile whose taps are loops: nothing is kept from one to the next."""
    outputs, taps = tile.rows * tile.columns, spec.kernel_height * spec.kernel_width
    return taps * spec.multiplier * (outputs + 1)
