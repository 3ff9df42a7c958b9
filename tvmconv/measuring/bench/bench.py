"""Times the kernels of a bundle, each against the roof measured beside it in the same round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvmconv.checking import oracle
from tvmconv.hardware import Machine, host
from tvmconv.measuring.roof import probe as roof
from tvmconv.measuring.roof import roof_loops, timing
from tvmconv.measuring.roof.probe import Roof
from tvmconv.problem.calling import Role
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.workloads import Layer
from tvmconv.runtime import Library, arrays, pools, tensors

# One run of a kernel fills 3 ms, so that a timer tick or an interrupt is below 1 %.
_LEAST_MS = 3.0

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """One layer, measured.

    Attributes:
        name, key, count: the layer, its spec, and how often it occurs in the network.
        microseconds: median over the rounds of one call of the compiled function.
        fastest, slowest: the spread over the rounds, in microseconds.
        percent_peak: of the arithmetic roof; median of the ratios taken within each round.
        percent_fed: of that roof with operands from the first-level cache, likewise.
        percent_bandwidth: of the copy bandwidth for a working set of this size.
        gflops, gbytes: rates at the median, 1e9 a second.
        limit: ``arithmetic`` or ``memory``, whichever floor is higher.
        source: the tuning record's place, or ``default``.
        schedule, decisions: what was compiled.
    """

    name: str
    key: str
    count: int
    microseconds: float
    fastest: float
    slowest: float
    percent_peak: float
    percent_fed: float
    percent_bandwidth: float
    gflops: float
    gbytes: float
    limit: str
    source: str
    schedule: str
    decisions: dict[str, Any]


@dataclass(frozen=True)
class Compiled:
    """What a kernel was made of: the record's place or ``default``, the schedule, its decisions."""

    source: str
    schedule: str
    decisions: dict[str, Any]


@dataclass(frozen=True)
class Report:
    """All rows of a workload, the roof they were held against, and the CPU that ran them.

    ``cache`` is ``warm``, or ``cold`` as in `timing.cold_seconds`.
    """

    rows: tuple[Row, ...]
    roof: Roof
    machine: str
    cpu: str
    threads: int
    rounds: int
    cache: str = "warm"

    @property
    def total_microseconds(self) -> float:
        """The network's convolutions one after the other, each as often as it occurs."""
        return sum(row.microseconds * row.count for row in self.rows)


class _Prepared:
    """A kernel with aligned random arguments, checked against the oracle, ready to be timed."""

    def __init__(self, library: Library, layer: Layer) -> None:
        spec = layer.spec
        self.layer, self.kernel = layer, library[spec.key]
        arguments = oracle.random_arguments(spec, seed=0)
        data = arrays.aligned_copy(arguments["data"])
        residual = arrays.aligned_copy(arguments["residual"]) if spec.residual else None
        bound = self.kernel.bind(**self.kernel.signature.keywords(arguments, Role.CONSTANT))
        out = arrays.empty_aligned(spec.output_shape, tensors.numpy_dtype(spec.out_dtype))
        bound(data, residual, out=out)
        oracle.assert_close(spec, oracle.conv(spec, **arguments), out)
        self.pointers = bound.pointers(data, residual, out)
        self._module, self._arrays = library.module, (data, residual, out)
        self.seconds: list[float] = []
        self.share_of_peak: list[float] = []
        self.share_of_fed: list[float] = []

    def run(self, probe: roof.Probe, cache: str) -> None:
        """One round: the kernel between looks at the two arithmetic roofs.

        All run equally long, so that a clock that falls or rises meanwhile hits all alike.
        """
        fed = probe.fed_flops_per_second(_LEAST_MS)
        called = self._module, self.layer.spec.key, self.pointers
        if cache == "cold":
            seconds = statistics.median(timing.cold_seconds(*called))
        else:
            (seconds,) = timing.seconds(*called, 1, _LEAST_MS)
        peak = probe.flops_per_second(_LEAST_MS)
        self.seconds.append(seconds)
        self.share_of_peak.append(self.layer.spec.flops / seconds / peak)
        self.share_of_fed.append(self.layer.spec.flops / seconds / fed)


def bench(
    library: Library,
    layers: Sequence[Layer],
    machine: Machine,
    rounds: int = 7,
    progress: Progress = lambda _what, _done, _total: None,
    cache: str = "warm",
) -> Report:
    """Time every layer ``rounds`` times, all layers in turn; values are checked first.

    Empty layers are left out: they run no kernel. Raises BuildError for wrong values.
    """
    pools.use_threads(library.threads)  # also the roof's loops run on so many
    loops = roof_loops.compiled(machine, library.threads)
    probe = roof.Probe(machine, library.threads, loops)
    measured = probe.roof()
    prepared = []
    todo = [layer for layer in layers if not layer.spec.is_empty]
    for number, layer in enumerate(todo):
        progress("checking values", number, len(todo))
        prepared.append(_Prepared(library, layer))
    for number in range(rounds):
        for at, kernel in enumerate(prepared):
            progress(f"round {number + 1} of {rounds}", number * len(todo) + at, rounds * len(todo))
            kernel.run(probe, cache)
    rows = tuple(_prepared_row(kernel, measured) for kernel in prepared)
    name, cpu = library.variant.machine, host.cpu_name()
    return Report(rows, measured, name, cpu, library.threads, rounds, cache)


def _prepared_row(prepared: _Prepared, measured: Roof) -> Row:
    entry = prepared.kernel.entry
    kernel = Compiled(entry.record or "default", entry.schedule, dict(entry.decisions))
    shares = statistics.median(prepared.share_of_peak), statistics.median(prepared.share_of_fed)
    return row(prepared.layer, kernel, prepared.seconds, shares, measured)


def row(
    layer: Layer,
    kernel: Compiled,
    times: Sequence[float],
    shares: tuple[float, float],
    measured: Roof,
) -> Row:
    """Put a layer's times (seconds) and its shares of the arithmetic roof, fed from L1 too, into a row."""
    spec: ConvSpec = layer.spec
    seconds = statistics.median(times)
    bandwidth = measured.bandwidth(spec.bytes)
    arithmetic, memory = spec.flops / measured.flops_per_second, spec.bytes / bandwidth
    return Row(
        name=layer.name,
        key=spec.key,
        count=layer.count,
        microseconds=seconds * 1e6,
        fastest=min(times) * 1e6,
        slowest=max(times) * 1e6,
        percent_peak=100 * shares[0],
        percent_fed=100 * shares[1],
        percent_bandwidth=100 * memory / seconds,
        gflops=spec.flops / seconds / 1e9,
        gbytes=spec.bytes / seconds / 1e9,
        limit="arithmetic" if arithmetic >= memory else "memory",
        source=kernel.source,
        schedule=kernel.schedule,
        decisions=kernel.decisions,
    )
