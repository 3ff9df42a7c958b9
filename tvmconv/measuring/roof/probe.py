"""What this machine can do at most: multiply-adds and copied bytes a second, measured.

The loops (`roof_loops`) are compiled by the same compiler for the same target as the kernels; here they
run, with the runtime alone. The idea of measuring the roof instead of reading a data sheet is the
roofline model's (Williams, Waterman, Patterson, CACM 52(4), 2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmconv.hardware import Machine
from tvmconv.measuring.roof import timing
from tvmconv.runtime import arrays

# Rows x vectors of independent chains: 12 are above latency x ports (8, or 10 on Haswell) on every core, and
# with two vectors and one broadcast they take 15 registers of 16. Twelve with a vector each did not fit, and
# showed 53 to 70 of 99 GFLOP/s on Zen 3 (2026-11). The broadcasts come from 12 KiB in the first-level cache.
CHAINS = (6, 2)
STEPS, TURNS = 512, 8
FED_STEPS, FED_TURNS = 64, 64
# Floats of a copied row.
ROW = 16 * 64
_LAST_LEVEL_BYTES = 16 << 20
_MEMORY_BYTES = 256 << 20
_PEAK_MS = 30.0


@dataclass(frozen=True)
class Bandwidth:
    """Bytes a second, read plus written, for working sets of at most ``working_set`` bytes."""

    working_set: int
    bytes_per_second: float


@dataclass(frozen=True)
class Roof:
    """float32 operations a second (two per multiply-add) and bandwidths, smallest set first.

    ``fed_flops_per_second`` is what is left when operands come from the first-level cache: on Sapphire
    Rapids 86 to 94 % of ``flops_per_second``; 94 % for a loop in C with intrinsics (2026-11).
    """

    flops_per_second: float
    fed_flops_per_second: float
    bandwidths: tuple[Bandwidth, ...]

    def bandwidth(self, working_set: int) -> float:
        """Bytes a second for a working set: that of the smallest measured one that holds it."""
        for level in self.bandwidths:
            if working_set <= level.working_set:
                return level.bytes_per_second
        return self.bandwidths[-1].bytes_per_second

    def highest(self, other: Roof) -> Roof:
        """The higher of each figure: a busy neighbour lowers a roof, nothing raises it."""
        return Roof(
            max(self.flops_per_second, other.flops_per_second),
            max(self.fed_flops_per_second, other.fed_flops_per_second),
            tuple(
                max(pair, key=lambda level: level.bytes_per_second)
                for pair in zip(self.bandwidths, other.bandwidths, strict=True)
            ),
        )


def fed_tile(machine: Machine) -> tuple[int, int]:
    """Pixels x vectors of the tile that is fed from the cache: 29 of 32 registers, or all of 16."""
    return (6, 4) if machine.cpu.vector_registers >= 32 else (4, 3)


class Probe:
    """The three loops, compiled for one machine and a number of threads, and their data.

    ``module`` holds them, compiled here (`roof_loops.compiled`) or by another process.
    """

    def __init__(self, machine: Machine, threads: int, module: Any) -> None:
        self._threads = threads
        self._module = module
        lanes = machine.cpu.lanes("float32")
        tile = fed_tile(machine)
        rows, columns = CHAINS[0], CHAINS[1] * lanes
        a = arrays.empty_aligned((STEPS, rows), np.float32)
        b = arrays.empty_aligned((columns,), np.float32)
        out = arrays.empty_aligned((threads, TURNS, rows, columns), np.float32)
        a[...], b[...] = 1e-3, 1.0
        self._fma = _pointers([a, b, out])
        self._fma_flops = 2 * STEPS * out.size
        pixels, channels = tile[0], tile[1] * lanes
        fed = [
            (threads, pixels, FED_STEPS),
            (FED_STEPS, channels),
            (threads, FED_TURNS, pixels, channels),
        ]
        fed_arrays = [arrays.empty_aligned(shape, np.float32) for shape in fed]
        fed_arrays[0][...], fed_arrays[1][...] = 1e-3, 1.0
        self._fed = _pointers(fed_arrays)
        self._fed_flops = 2 * FED_STEPS * fed_arrays[2].size
        self._l2_bytes = machine.cpu.l2_bytes // 2

    def flops_per_second(self, least_ms: float = 3.0) -> float:
        """Measure the arithmetic roof once, for ``least_ms`` milliseconds.

        Look as long as the kernel runs beside it, so that a changing clock hits both alike.
        """
        (seconds,) = timing.seconds(self._module, "fma", self._fma, 1, least_ms)
        return self._fma_flops / seconds

    def highest_flops_per_second(self, total_ms: float) -> float:
        """Measure the arithmetic roof by the fastest of the short looks in ``total_ms`` milliseconds."""
        return self._fma_flops / timing.fastest(self._module, "fma", self._fma, total_ms)

    def highest_fed_flops_per_second(self, total_ms: float) -> float:
        """Measure the roof with operands from the first-level cache, as above."""
        return self._fed_flops / timing.fastest(self._module, "fed", self._fed, total_ms)

    def fed_flops_per_second(self, least_ms: float = 3.0) -> float:
        """Measure the arithmetic roof with operands from the first-level cache, as above."""
        (seconds,) = timing.seconds(self._module, "fed", self._fed, 1, least_ms)
        return self._fed_flops / seconds

    def bandwidth(self, working_set: int, total_ms: float = 15.0) -> float:
        """Measure bytes a second of copying half of ``working_set`` bytes to the other half."""
        rows = max(
            1, working_set // 2 // 4 // (ROW * self._threads)
        )  # many threads: more than asked
        source = arrays.empty_aligned((self._threads, rows, ROW), np.float32)
        target = arrays.empty_aligned(source.shape, np.float32)
        source[...] = target[...] = 1.0
        pointers = _pointers([source, target])
        return 2 * source.nbytes / timing.fastest(self._module, "copy", pointers, total_ms)

    def peak(self) -> float:
        """Measure the arithmetic roof: of two loops the faster, by the fastest of many short looks.

        Both are made of multiply-adds alone, so that neither can be too fast; a busy neighbour makes both
        too slow, by a median often twofold.
        """
        return max(
            self.highest_flops_per_second(_PEAK_MS), self.highest_fed_flops_per_second(_PEAK_MS)
        )

    def roof(self) -> Roof:
        """Measure everything: the arithmetic roofs, three levels of memory."""
        fed = self.highest_fed_flops_per_second(_PEAK_MS)
        flops = max(self.highest_flops_per_second(_PEAK_MS), fed)
        sizes = (self._l2_bytes, _LAST_LEVEL_BYTES, _MEMORY_BYTES)
        return Roof(flops, fed, tuple(Bandwidth(size, self.bandwidth(size)) for size in sizes))


def _pointers(buffers: list[arrays.Array]) -> tuple[Any, ...]:
    return tuple(arrays.array_pointer(buffer) for buffer in buffers)
