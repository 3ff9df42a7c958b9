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

from tvmconv.hardware import Machine
from tvmconv.schedules.shared.winograd_space import Costs, schedule
from tvmconv.schedules.x86 import machines


def _third_level(machine: Machine) -> int:
    """Bytes of the largest filter that a third level holds beside the rest; 0 where none was measured.

    The 16.8 MB of 7x7x512 with tiles of two stay in the 32 MiB that eight of AMD's cores share, where they
    make 526 us of direct convolution's 714 (Zen 5, 2026-11); of Intel's servers a core has 2 MB.
    """
    return (20 << 20) if machine in machines.AMD else 0


COSTS = Costs(
    direct_rate=0.9,  # docs/measured.md
    # By counting for m = 4: half a cycle a load, one a store, the rest sums; the way back stores but 16
    # of 36.
    data=3.5,
    out=2.5,
    # Half a line; a whole one of Zen 5, where 14x14x512 takes 1.56 ms in place of 1.91 so (2026-11).
    l2_bytes=lambda machine: 64 if machine.name in machines.WHOLE_LINES else 32,
    l3_bytes=8,
    memory_bytes=3,  # what 7x7x512 reached beside other work (9 GB/s; Sapphire Rapids, 2026-11)
    l3=_third_level,
    registers=lambda pixels, vectors: pixels * vectors + vectors + 1,
)

WINOGRAD = schedule("x86.conv2d.winograd", COSTS)
SCHEDULES = (WINOGRAD,)
