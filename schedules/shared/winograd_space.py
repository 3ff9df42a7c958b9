"""Winograd's decisions on any CPU: which there are, which go together, what they should cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tvmconv.compute import conv2d_winograd
from tvmconv.compute.geometry import round_up
from tvmconv.hardware import Choice, Decisions, Knob, Machine, Schedule
from tvmconv.problem.rules import ITEM_BYTES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import tile_costs
from tvmconv.schedules.shared.typed import read
from tvmconv.schedules.shared.winograd import (
    DATA_OUTER,
    FILTER_OUTER,
    WinogradDecisions,
    apply,
    filter_bytes,
)

# Tiles of a strip's first and last column test for the padding in every strip.
_LEAST_COLUMNS = 4


@dataclass(frozen=True)
class Costs:
    """What differs from one kind of CPU to another.

    Attributes:
        direct_rate: share of the peak that direct 3x3 convolution reaches.
        data, out: cycles a vector and element of a tile for the two transforms.
        l2_bytes, l3_bytes, memory_bytes: bytes a cycle that one core streams from the second level, from a
            third level behind it, and from memory.
        l3: bytes of the largest filter that stays in a machine's third level.
        registers: vector registers of a register tile of (pixels, vectors).
    """

    direct_rate: float
    data: float
    out: float
    l2_bytes: Callable[[Machine], float]
    l3_bytes: float
    memory_bytes: float
    l3: Callable[[Machine], int]
    registers: Callable[[int, int], int]


def schedule(name: str, costs: Costs) -> Schedule:
    """Return Winograd's schedule under a pack's name."""
    return Schedule(
        name,
        accepts,
        knobs,
        partial(legal, costs),
        partial(default, costs),
        apply,
        partial(preferred, costs),
        winograd=True,
        macs=macs,
    )


def macs(spec: ConvSpec, decisions: Decisions) -> int:
    """Multiply-adds of the products of transformed tiles; the transforms are not counted."""
    outputs = int(decisions["outputs"])
    tiles = _tiles(spec, outputs, conv2d_winograd.tile_rows(spec, outputs))
    inputs = outputs + conv2d_winograd.TAPS - 1
    return spec.batch * tiles * inputs**2 * spec.in_channels * spec.out_channels


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """3x3, stride 1, NHWC, float32, one group, channels in whole half vectors."""
    half = max(machine.cpu.lanes("float32") // 2, 1)
    return (
        spec.op == "conv2d"
        and not spec.is_empty
        and spec.dtype == "float32"
        and spec.data_format == "NHWC"
        and (spec.kernel_height, spec.kernel_width) == (conv2d_winograd.TAPS, conv2d_winograd.TAPS)
        and spec.strides == (1, 1)
        and spec.dilations == (1, 1)
        and spec.groups == 1
        and spec.in_channels % half == 0
        and spec.out_channels % half == 0
        and min(spec.out_height, spec.out_width) >= 2
    )


def knobs(spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile of outputs, the register tile, the rows of tiles at a time, and what is outermost."""
    outputs = _outputs(spec)
    bands = {band for m in outputs for band in _bands(spec, m)}
    columns = sorted({each for m in outputs for each in _columns(spec, machine, m)})
    most = max(_tiles(spec, m, conv2d_winograd.tile_rows(spec, m)) for m in outputs)
    return (
        Knob("outputs", tuple(outputs)),
        Knob("channels", tuple(_blocks(spec, machine))),
        Knob("pixels", tuple(range(min(most, machine.cpu.vector_registers - 2), 0, -1))),
        Knob("band", tuple(sorted(bands))),
        Knob("order", (DATA_OUTER, FILTER_OUTER)),
        Knob("unroll", tuple(_unrolls(spec))),
        *((Knob("columns", tuple(columns)),) if len(columns) > 1 else ()),
    )


def _outputs(spec: ConvSpec) -> list[int]:
    """Sizes of a tile, the larger first."""
    most = min(spec.out_height, spec.out_width)
    return [outputs for outputs in conv2d_winograd.TILES[::-1] if outputs <= most]


def _unrolls(spec: ConvSpec) -> list[int]:
    return [u for u in (4, 2, 1) if spec.in_channels % u == 0]


def _bands(spec: ConvSpec, outputs: int) -> list[int]:
    """Rows of tiles at a time: divisors of all rows."""
    rows = conv2d_winograd.tile_rows(spec, outputs)
    return [band for band in range(1, rows + 1) if rows % band == 0]


def _columns(spec: ConvSpec, machine: Machine, outputs: int) -> list[int]:
    """Columns of tiles at a time: 0 for all, or divisors where the second level holds no row of them."""
    wide = conv2d_winograd.tile_columns(spec, outputs)
    if 2 * _transformed_bytes(spec, outputs, wide) <= machine.cpu.l2_bytes:
        return [0]
    return [0, *(c for c in range(_LEAST_COLUMNS, wide) if wide % c == 0)]


def _transformed_bytes(spec: ConvSpec, outputs: int, tiles: int) -> int:
    """Of the data of so many tiles."""
    size = outputs + conv2d_winograd.TAPS - 1
    return tiles * size**2 * spec.in_channels * ITEM_BYTES[spec.dtype]


def _jobs(spec: ConvSpec, point: WinogradDecisions) -> int:
    """Parallel jobs: bands of rows, or blocks of output channels."""
    if not point.by_data:
        return spec.batch * spec.out_channels // point.channels
    cut = conv2d_winograd.tiling(spec, point.outputs, point.band, point.columns)
    return spec.batch * cut.bands * cut.parts


def _blocks(spec: ConvSpec, machine: Machine) -> list[int]:
    """Widths of the packed filter, up to four vectors, that divide the channels; whole vectors if any."""
    lanes = machine.cpu.lanes("float32")
    half = max(lanes // 2, 1)
    exact = [b for b in range(4 * lanes, 0, -half) if spec.out_channels % b == 0]
    return [b for b in exact if b % lanes == 0] or exact


def _tiles(spec: ConvSpec, outputs: int, band: int, columns: int = 0) -> int:
    return conv2d_winograd.tiling(spec, outputs, band, columns).strip


def legal(costs: Costs, spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """Bands divide the rows, the register tile fits and is not too ragged, and there are jobs."""
    return _is_legal(costs, spec, machine, read(WinogradDecisions, decisions))


def _is_legal(costs: Costs, spec: ConvSpec, machine: Machine, point: WinogradDecisions) -> bool:
    bands, pixels = _bands(spec, point.outputs), point.pixels
    if point.band not in bands or point.columns not in _columns(spec, machine, point.outputs):
        return False
    most = max(spec.batch * bands[-1], spec.out_channels // min(_blocks(spec, machine)))
    if _jobs(spec, point) < min(most, tile_costs.LEAST_JOBS):
        return False
    vectors = tile_costs.vectors(point.channels, machine, "float32")
    if pixels > 1 and costs.registers(pixels, vectors) > machine.cpu.vector_registers:
        return False
    strip = _tiles(spec, point.outputs, point.band, point.columns)
    return pixels in tile_costs.pixel_tiles(strip, machine.cpu.vector_registers - 2)


def default(costs: Costs, spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    """The legal point with the least estimated time."""
    best = _best(costs, spec, machine)
    return {knob.name: getattr(best, knob.name) for knob in knobs(spec, machine)}


def _best(costs: Costs, spec: ConvSpec, machine: Machine) -> WinogradDecisions:
    points = (
        WinogradDecisions(outputs, channels, pixels, band, order, _unrolls(spec)[0], columns)
        for outputs in _outputs(spec)
        for channels in _blocks(spec, machine)
        for band in _bands(spec, outputs)
        for columns in _columns(spec, machine, outputs)
        for pixels in tile_costs.pixel_tiles(
            _tiles(spec, outputs, band, columns), machine.cpu.vector_registers - 2
        )
        for order in (DATA_OUTER, FILTER_OUTER)
    )
    usable = (point for point in points if _is_legal(costs, spec, machine, point))
    return min(usable, key=lambda point: cycles(costs, spec, machine, point))


def preferred(costs: Costs, spec: ConvSpec, machine: Machine) -> bool:
    """Whether the best tile is estimated to be faster than direct convolution at its usual rate."""
    fmas = spec.macs / machine.cpu.lanes("float32") / machine.cpu.fma_ports / costs.direct_rate
    filter_ = filter_bytes(spec, conv2d_winograd.TAPS**2)
    far = tile_costs.is_far(filter_, machine)
    direct = max(fmas, filter_ / (costs.memory_bytes if far else costs.l2_bytes(machine)))
    return cycles(costs, spec, machine, _best(costs, spec, machine)) < direct


def cycles(costs: Costs, spec: ConvSpec, machine: Machine, point: WinogradDecisions) -> float:
    """Estimate one core's cycles: products or what they read, whichever is longer, and transforms."""
    outputs, channels, pixels = point.outputs, point.channels, point.pixels
    lanes, size = machine.cpu.lanes("float32"), outputs + conv2d_winograd.TAPS - 1
    cut = conv2d_winograd.tiling(spec, outputs, point.band, point.columns)
    strips = spec.batch * cut.bands * cut.parts
    count = strips * cut.strip
    vectors = -(-channels // lanes)
    fmas = count * size**2 * spec.in_channels * spec.out_channels / lanes
    useful = (3 + cut.strip / round_up(cut.strip, pixels)) / 4
    products = fmas * tile_costs.cycles_per_fma(machine, pixels, vectors, channels / lanes) / useful
    panel = spec.in_channels * channels * ITEM_BYTES[spec.dtype]
    if 4 * panel > 3 * machine.cpu.l1_bytes:  # every strip reads it from the second level
        tiles = count / pixels
        products += (
            tiles * size**2 * panel * (spec.out_channels / channels) / costs.l2_bytes(machine)
        )
    traffic = _traffic(costs, spec, machine, point)
    transforms = (
        count * size**2 * (costs.data * spec.in_channels + costs.out * spec.out_channels) / lanes
    )
    transforms *= _spilled(spec, machine, point)
    # An eighth of the lesser breaks ties among tiles that all wait for memory.
    return max(products, traffic) + min(products, traffic) / 8 + transforms


def _traffic(costs: Costs, spec: ConvSpec, machine: Machine, point: WinogradDecisions) -> float:
    """Cycles of reading the filter, and transformed data that the second level does not hold.

    "data_outer" reads the whole filter for each strip, and the strip for each block of output channels;
    "filter_outer" the filter once, and all data for each block.
    """
    size = point.outputs + conv2d_winograd.TAPS - 1
    cut = conv2d_winograd.tiling(spec, point.outputs, point.band, point.columns)
    strips, blocks = cut.bands * cut.parts, spec.out_channels // point.channels
    weights = filter_bytes(spec, size**2)
    times = spec.batch * (strips if point.by_data else 1)
    held = _held(spec, point)
    products = cut.strip * size**2 * point.channels * ITEM_BYTES[spec.dtype]
    near = point.by_data and weights + held + products <= machine.cpu.l2_bytes
    rate = costs.l2_bytes(machine) if near else _rate(costs, machine, weights)
    reading = times * weights / rate
    if 2 * held > machine.cpu.l2_bytes:
        data = strips * _transformed_bytes(spec, point.outputs, cut.strip)
        reading += spec.batch * blocks * data / costs.l3_bytes
    return reading


def _rate(costs: Costs, machine: Machine, held: int) -> float:
    """Bytes a cycle of reading a filter of so many."""
    if not tile_costs.is_far(held, machine):
        return costs.l2_bytes(machine)
    return costs.l3_bytes if held <= costs.l3(machine) else costs.memory_bytes


def _held(spec: ConvSpec, point: WinogradDecisions) -> int:
    """Bytes of transformed data that are used again for the next block of output channels."""
    cut = conv2d_winograd.tiling(spec, point.outputs, point.band, point.columns)
    strips = 1 if point.by_data else cut.bands * cut.parts
    return strips * _transformed_bytes(spec, point.outputs, cut.strip)


def _spilled(spec: ConvSpec, machine: Machine, point: WinogradDecisions) -> float:
    """How much dearer transforms are when data or a strip's products leave the second-level cache.

    The less of it they take the better: 80x80x32 takes 173 us a row of tiles at a time, 214 by four (Zen 5,
    2026-11).
    """
    size = point.outputs + conv2d_winograd.TAPS - 1
    cut = conv2d_winograd.tiling(spec, point.outputs, point.band, point.columns)
    products = cut.strip * size**2 * point.channels * ITEM_BYTES[spec.dtype]
    held = _held(spec, point)
    if 2 * max(held, products) > machine.cpu.l2_bytes:
        return 2.0
    return 1 + (held + products) / machine.cpu.l2_bytes / 4
