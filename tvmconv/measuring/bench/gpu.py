"""Times the kernels of a bundle on a GPU, each beside what the card's memory allows.

NOT YET RUN on a GPU.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvmconv.checking import gpu as gpu_check
from tvmconv.checking import oracle
from tvmconv.hardware import Machine
from tvmconv.measuring.bench.bench import Compiled
from tvmconv.measuring.process import gpu_copies
from tvmconv.measuring.process.cuda_graphs import Clock, Flush, Graph, GraphOf
from tvmconv.measuring.process.gpu_copies import Copies, Tensors
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.workloads import Layer
from tvmconv.runtime import GpuLibrary

_LEAST_MS = 3.0  # of a round

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """One layer, measured; its fields are as in `tvmconv.measuring.bench.bench.Row`.

    ``percent_bandwidth`` is of the bandwidth in the machine's facts, not of a measured one. With a warm cache
    it can be above 100, since data stays in L2 between launches where it fits.
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
class Report:
    """All rows of a workload, and where they were measured."""

    rows: tuple[Row, ...]
    machine: str
    device: str
    rounds: int
    cache: str

    @property
    def total_microseconds(self) -> float:
        """The network's convolutions one after the other, each as often as it occurs."""
        return sum(row.microseconds * row.count for row in self.rows)


def bench(
    library: GpuLibrary,
    layers: Sequence[Layer],
    machine: Machine,
    rounds: int = 7,
    progress: Progress = lambda _what, _done, _total: None,
    cache: str = "warm",
    graph: GraphOf = Graph,
) -> Report:
    """Time every layer, its values checked first; empty ones are left out.

    ``cache`` is one of `copies.CACHES`, ``graph`` what replays launches.

    Raises BuildError for wrong values, DeviceError where CUDA refuses.
    """
    rows = []
    todo = [layer for layer in layers if not layer.spec.is_empty]
    for number, layer in enumerate(todo):
        progress(layer.name, number, len(todo))
        times = _times(
            library,
            layer.spec,
            gpu_copies.copies(layer.spec, machine.core.l2_bytes, cache),
            rounds,
            graph,
        )
        kernel = library[layer.spec.key]
        made = Compiled(kernel.entry.record or "default", kernel.schedule, kernel.decisions)
        rows.append(row(layer, made, times, machine))
    device = str(library.gpu.device)
    return Report(tuple(rows), library.variant.machine, device, rounds, cache)


def _times(
    library: GpuLibrary, spec: ConvSpec, wanted: Copies, rounds: int, graph: GraphOf
) -> list[float]:
    """Seconds of one launch in each round."""
    gpu, kernel = library.gpu, library[spec.key]
    gpu_check.check(kernel)
    arguments = oracle.random_arguments(spec, seed=0)
    here = {name: gpu.upload(array) for name, array in arguments.items()}
    launches = Tensors(gpu, spec, here, wanted.count).launches(kernel)
    with contextlib.ExitStack() as kept:
        flush = None
        if wanted.flush:
            flush = Flush(gpu, wanted.flush, graph)
            kept.callback(flush.close)
        clock = kept.enter_context(Clock(gpu, launches, flush, graph))
        clock.seconds(_LEAST_MS)
        return [clock.seconds(_LEAST_MS) for _ in range(rounds)]


def row(layer: Layer, kernel: Compiled, times: Sequence[float], machine: Machine) -> Row:
    """Put a layer's times, in seconds, into a row."""
    spec, seconds = layer.spec, statistics.median(times)
    bandwidth = machine.gpu.bandwidth if machine.gpu else 0
    return Row(
        name=layer.name,
        key=spec.key,
        count=layer.count,
        microseconds=seconds * 1e6,
        fastest=min(times) * 1e6,
        slowest=max(times) * 1e6,
        percent_bandwidth=100 * spec.bytes / seconds / bandwidth if bandwidth else 0.0,
        gflops=spec.flops / seconds / 1e9,
        gbytes=spec.bytes / seconds / 1e9,
        source=kernel.source,
        schedule=kernel.schedule,
        decisions=kernel.decisions,
    )
