"""What timing kernels gives: a row a layer, of a CPU beside its roof, of a GPU beside its memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvmconv.measuring.roof.probe import Roof
from tvmconv.problem.workloads import Layer

# One run of a kernel fills 3 ms, so that a timer tick or an interrupt is below 1 %.
LEAST_MS = 3.0


@dataclass(frozen=True)
class Compiled:
    """What a kernel was made of: the record's place or ``default``, the schedule, its decisions."""

    source: str
    schedule: str
    decisions: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One layer, measured.

    Attributes:
        name, key, count: the layer, its spec, and how often it occurs in the network.
        microseconds: median over the rounds of one call of the compiled function.
        fastest, slowest: the spread over the rounds, in microseconds.
        percent_bandwidth: of the copy bandwidth for a working set of this size; of a GPU, of the bandwidth in
            the machine's facts, and with a warm cache it can be above 100, since data stays in L2 between
            launches where it fits.
        gflops, gbytes: rates at the median, 1e9 a second.
        source: the tuning record's place, or ``default``.
        schedule, decisions: what was compiled.
    """

    name: str
    key: str
    count: int
    microseconds: float
    fastest: float
    slowest: float
    percent_bandwidth: float
    gflops: float
    gbytes: float
    source: str
    schedule: str
    decisions: dict[str, Any]


@dataclass(frozen=True)
class CpuRow(Row):
    """And what a CPU makes of its arithmetic.

    Attributes:
        percent_peak: of the arithmetic roof; median of the ratios taken within each round.
        percent_fed: of that roof with operands from the first-level cache, likewise.
        limit: ``arithmetic`` or ``memory``, whichever floor is higher.
    """

    percent_peak: float
    percent_fed: float
    limit: str


@dataclass(frozen=True)
class Report:
    """All rows of a workload, and how they were measured.

    ``cache`` is ``warm``, or ``cold`` as in `timing.cold_seconds`.
    """

    rows: tuple[Row, ...]
    machine: str
    rounds: int
    cache: str

    @property
    def total_microseconds(self) -> float:
        """The network's convolutions one after the other, each as often as it occurs."""
        return sum(row.microseconds * row.count for row in self.rows)


@dataclass(frozen=True)
class CpuReport(Report):
    """Those of a CPU, and the roof that they were held against."""

    rows: tuple[CpuRow, ...]
    roof: Roof
    cpu: str
    threads: int


@dataclass(frozen=True)
class GpuReport(Report):
    """Those of a card."""

    device: str


def row(layer: Layer, kernel: Compiled, times: Sequence[float], bandwidth: float) -> Row:
    """Put a layer's times, in seconds, into a row; ``bandwidth`` is in bytes a second."""
    spec, seconds = layer.spec, statistics.median(times)
    return Row(
        name=layer.name,
        key=spec.key,
        count=layer.count,
        microseconds=seconds * 1e6,
        fastest=min(times) * 1e6,
        slowest=max(times) * 1e6,
        percent_bandwidth=100 * spec.bytes / bandwidth / seconds,
        gflops=spec.flops / seconds / 1e9,
        gbytes=spec.bytes / seconds / 1e9,
        source=kernel.source,
        schedule=kernel.schedule,
        decisions=kernel.decisions,
    )


def cpu_row(
    layer: Layer,
    kernel: Compiled,
    times: Sequence[float],
    shares: tuple[float, float],
    measured: Roof,
) -> CpuRow:
    """And its shares of the arithmetic roof, fed from the first-level cache too."""
    spec, bandwidth = layer.spec, measured.bandwidth(layer.spec.bytes)
    computing, moving = spec.flops / measured.flops_per_second, spec.bytes / bandwidth
    return CpuRow(
        **vars(row(layer, kernel, times, bandwidth)),
        percent_peak=100 * shares[0],
        percent_fed=100 * shares[1],
        limit="arithmetic" if computing >= moving else "memory",
    )
