"""What timing kernels gives: a row a layer, of a CPU beside its roof, of a GPU beside its memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvmconv.measuring.roof import bounds
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
            the machine's facts. None where the layer is faster, of a CPU also measured again.
        above: how many times as fast as such roofs it is then, by their names.
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
    percent_bandwidth: float | None
    above: dict[str, float]
    gflops: float
    gbytes: float
    source: str
    schedule: str
    decisions: dict[str, Any]


@dataclass(frozen=True)
class CpuRow(Row):
    """And what a CPU makes of its arithmetic.

    Attributes:
        percent_peak: of the arithmetic roof, by the multiply-adds of the kernel's algorithm, those of bytes
            and halves at the rate of the fastest instruction for them; median of the ratios taken within
            each round. None above it, as ``percent_bandwidth``.
        percent_fed: of that roof with operands from the first-level cache, likewise.
        limit: ``arithmetic`` or ``memory``, whichever floor is higher.
    """

    percent_peak: float | None
    percent_fed: float | None
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
    shares = {"bandwidth": spec.bytes / bandwidth / seconds}
    return Row(
        name=layer.name,
        key=spec.key,
        count=layer.count,
        microseconds=seconds * 1e6,
        fastest=min(times) * 1e6,
        slowest=max(times) * 1e6,
        percent_bandwidth=bounds.percent(shares["bandwidth"]),
        above=_above(shares),
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
    work: float,
) -> CpuRow:
    """And its shares of the arithmetic roof, fed from L1 too; ``work`` is as in `bounds.work`."""
    bandwidth = measured.bandwidth(layer.spec.bytes)
    computing, moving = work / measured.flops_per_second, layer.spec.bytes / bandwidth
    plain = vars(row(layer, kernel, times, bandwidth))
    return CpuRow(
        **{**plain, "above": {**_above({"peak": shares[0], "fed": shares[1]}), **plain["above"]}},
        percent_peak=bounds.percent(shares[0]),
        percent_fed=bounds.percent(shares[1]),
        limit="arithmetic" if computing >= moving else "memory",
    )


def _above(shares: dict[str, float]) -> dict[str, float]:
    return {name: share for name, share in shares.items() if bounds.percent(share) is None}
