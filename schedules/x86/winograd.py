"""3x3 convolution of stride 1 on x86 by Winograd's tiles: transforms around one matrix product each.

THE LOOPS, for tiles of m x m outputs, (m + 2)^2 products, bands of ``band`` rows of tiles:

    "data_outer"                                  "filter_outer"
    for band of tiles              parallel       transform all data                parallel
      transform its data                          for block of output channels      parallel
      for block of output channels                  for band of tiles
        for product, tiles: multiply, add             for product, tiles: multiply, add
        for tile: transform, epilogue, store          for tile: transform, epilogue, store

A panel of the filter for one product, in_channels x ``channels``, should fit the first-level cache: with
256 input channels 64 x 5 takes 1.5 times as long as 32 x 14 (14x14, m = 2; Sapphire Rapids, 2026-11).

"data_outer" keeps the transformed data of a band in the second-level cache and reads the whole filter
for each band; "filter_outer" reads the filter once, and suits few tiles with many channels.

THE REGISTER TILE is a dense convolution's: ``pixels`` tiles x ``channels`` output channels.

    registers   pixels * nv accumulators + nv weights + 1 broadcast
    AVX-512     14 x 2 vectors = 28 + 2 + 1 = 31 registers, 0.57 loads/FMA

THE TRANSFORMS take a vector of channels of one tile at a time: 36 loads, 12 sums of 3 to 4 terms, 36
stores for m = 4, all of it in the first two caches. At the FMA peak the products of 56x56x64 alone would take
283 of the 415 us measured.

Measured, Sapphire Rapids, one thread, 2026-11-22 (docs/measured.md): ResNet-50's layers at 56, 28 and 14
run at 192 to 246 % of the FMA peak in direct convolution's multiply-adds, at 7x7, where memory limits, at
119 %; 1.6 to 2.4 times as fast as the best library (docs/peers.md).

The filter is (m + 2)^2 / 9 times as large as TensorFlow's: 4 times for m = 4. Where it no longer fits the
second-level cache and few tiles use it, direct convolution is faster; `preferred` estimates that.
"""

from __future__ import annotations

from tvmconv.compute import winograd
from tvmconv.hardware import Choice, Decisions, Knob, Machine, Schedule
from tvmconv.nests import tiles
from tvmconv.nests.winograd import DATA_OUTER, FILTER_OUTER, apply, filter_bytes
from tvmconv.rules import ITEM_BYTES
from tvmconv.spec import ConvSpec

_DIRECT_RATE = 0.9  # share of the peak that direct 3x3 convolution reaches (docs/measured.md)
# Cycles a vector and element of a tile for the two transforms, by counting for m = 4: half a cycle a load,
# one a store, the rest sums; the way back stores but 16 of 36.
_DATA, _OUT = 3.5, 2.5
# Bytes a cycle that one core streams: half a line from the second level; from behind it what 7x7x512
# reached beside other work (9 GB/s; Sapphire Rapids, 2026-11).
_L2_BYTES_PER_CYCLE, _FAR_BYTES_PER_CYCLE = 32, 3


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """3x3, stride 1, NHWC, float32, one group, channels in whole half vectors."""
    half = max(machine.lanes("float32") // 2, 1)
    return (
        spec.op == "conv2d"
        and not spec.is_empty
        and spec.dtype == "float32"
        and spec.data_format == "NHWC"
        and (spec.kernel_height, spec.kernel_width) == (winograd.TAPS, winograd.TAPS)
        and spec.strides == (1, 1)
        and spec.dilations == (1, 1)
        and spec.groups == 1
        and spec.in_channels % half == 0
        and spec.out_channels % half == 0
        and min(spec.out_height, spec.out_width) >= 2
    )


def knobs(spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile of outputs, the register tile, the rows of tiles at a time, and what is outermost."""
    outputs = [m for m in winograd.TILES[::-1] if m <= min(spec.out_height, spec.out_width)]
    bands = {band for m in outputs for band in _bands(spec, m)}
    most = max(_tiles(spec, m, winograd.tile_rows(spec, m)) for m in outputs)
    return (
        Knob("outputs", tuple(outputs)),
        Knob("channels", tuple(_blocks(spec, machine))),
        Knob("pixels", tuple(range(min(most, machine.vector_registers - 2), 0, -1))),
        Knob("band", tuple(sorted(bands))),
        Knob("order", (DATA_OUTER, FILTER_OUTER)),
        Knob("unroll", tuple(u for u in (4, 2, 1) if spec.in_channels % u == 0)),
    )


def _bands(spec: ConvSpec, outputs: int) -> list[int]:
    """Rows of tiles at a time: divisors of all rows."""
    rows = winograd.tile_rows(spec, outputs)
    return [band for band in range(1, rows + 1) if rows % band == 0]


def _jobs(spec: ConvSpec, decisions: Decisions) -> int:
    """Parallel jobs: bands of rows, or blocks of output channels."""
    if decisions["order"] == FILTER_OUTER:
        return spec.batch * spec.out_channels // int(decisions["channels"])
    rows = winograd.tile_rows(spec, int(decisions["outputs"]))
    return spec.batch * rows // int(decisions["band"])


def _blocks(spec: ConvSpec, machine: Machine) -> list[int]:
    """Widths of the packed filter, up to four vectors, that divide the channels; whole vectors if any."""
    lanes = machine.lanes("float32")
    half = max(lanes // 2, 1)
    exact = [b for b in range(4 * lanes, 0, -half) if spec.out_channels % b == 0]
    return [b for b in exact if b % lanes == 0] or exact


def _tiles(spec: ConvSpec, outputs: int, band: int) -> int:
    return winograd.tiling(spec, outputs, band).strip


def legal(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """Bands divide the rows, the register tile fits and is not too ragged, and there are jobs."""
    outputs, band, pixels = (int(decisions[name]) for name in ("outputs", "band", "pixels"))
    bands = _bands(spec, outputs)
    if band not in bands:
        return False
    most = max(spec.batch * bands[-1], spec.out_channels // min(_blocks(spec, machine)))
    if _jobs(spec, decisions) < min(most, tiles.LEAST_JOBS):
        return False
    vectors = tiles.vectors(int(decisions["channels"]), machine, "float32")
    if pixels > 1 and pixels * vectors + vectors + 1 > machine.vector_registers:
        return False
    strip = _tiles(spec, outputs, band)
    return pixels in tiles.pixel_tiles(strip, machine.vector_registers - 2)


def default(spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    """The legal point with the least estimated time."""
    space = {knob.name: knob.candidates for knob in knobs(spec, machine)}
    points: list[dict[str, Choice]] = [
        {
            "outputs": outputs,
            "channels": channels,
            "pixels": pixels,
            "band": band,
            "order": order,
            "unroll": space["unroll"][0],
        }
        for outputs in space["outputs"]
        for channels in space["channels"]
        for band in _bands(spec, int(outputs))
        for pixels in tiles.pixel_tiles(
            _tiles(spec, int(outputs), band), machine.vector_registers - 2
        )
        for order in space["order"]
    ]
    return min(
        (point for point in points if legal(spec, machine, point)),
        key=lambda point: cycles(spec, machine, point),
    )


def preferred(spec: ConvSpec, machine: Machine) -> bool:
    """Whether the best tile is estimated to be faster than direct convolution at its usual rate."""
    fmas = spec.macs / machine.lanes("float32") / machine.fma_ports / _DIRECT_RATE
    direct = max(fmas, _filter_cycles(spec, machine, taps=winograd.TAPS**2, reads=1))
    return cycles(spec, machine, default(spec, machine)) < direct


def cycles(spec: ConvSpec, machine: Machine, decisions: Decisions) -> float:
    """Estimate one core's cycles: products or reading the filter, whichever is longer, and transforms."""
    outputs, channels, pixels, band = (
        int(decisions[name]) for name in ("outputs", "channels", "pixels", "band")
    )
    lanes, size = machine.lanes("float32"), outputs + winograd.TAPS - 1
    cut = winograd.tiling(spec, outputs, band)
    count, strip = spec.batch * cut.bands * cut.strip, cut.strip
    vectors = -(-channels // lanes)
    fmas = count * size**2 * spec.in_channels * spec.out_channels / lanes
    useful = (3 + strip / tiles.rounded(strip, pixels)) / 4
    products = fmas * tiles.cycles_per_fma(machine, pixels, vectors, channels / lanes) / useful
    panel = spec.in_channels * channels * ITEM_BYTES[spec.dtype]
    if 4 * panel > 3 * machine.l1_bytes:  # every strip reads it from the second level
        strips = count / pixels
        products += strips * size**2 * panel * (spec.out_channels / channels) / _L2_BYTES_PER_CYCLE
    reads = spec.batch * cut.bands if decisions["order"] == DATA_OUTER else spec.batch
    filter_ = _filter_cycles(spec, machine, size**2, reads)
    transforms = count * size**2 * (_DATA * spec.in_channels + _OUT * spec.out_channels) / lanes
    transforms *= _spilled(spec, machine, decisions)
    # An eighth of the lesser breaks ties among tiles that all wait for memory.
    return float(max(products, filter_) + min(products, filter_) / 8 + transforms)


def _filter_cycles(spec: ConvSpec, machine: Machine, taps: int, reads: int) -> float:
    """Cycles of reading a filter with so many taps, from where it is found again."""
    size = filter_bytes(spec, taps)
    far = tiles.is_far(size, machine)
    return reads * size / (_FAR_BYTES_PER_CYCLE if far else _L2_BYTES_PER_CYCLE)


def _spilled(spec: ConvSpec, machine: Machine, decisions: Decisions) -> float:
    """How much dearer transforms are when their results leave the second-level cache."""
    outputs, band = int(decisions["outputs"]), int(decisions["band"])
    size = outputs + winograd.TAPS - 1
    rows = band if decisions["order"] == DATA_OUTER else winograd.tile_rows(spec, outputs)
    held = _tiles(spec, outputs, rows) * size**2 * spec.in_channels * ITEM_BYTES[spec.dtype]
    return 2.0 if 2 * held > machine.l2_bytes else 1.0


WINOGRAD = Schedule(
    "x86.conv2d.winograd", accepts, knobs, legal, default, apply, preferred, winograd=True
)
SCHEDULES = (WINOGRAD,)
