"""Times the kernels of a bundle on a GPU, each beside what the card's memory allows.

NOT YET RUN on a GPU.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmconv import oracle
from tvmconv.bench import Compiled
from tvmconv.gpu import check as gpu_check
from tvmconv.hardware import Machine
from tvmconv.runtime import GpuLibrary, gpu_timing
from tvmconv.workloads import Layer

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """One layer, measured; its fields are as in `tvmconv.bench.Row`.

    ``percent_bandwidth`` is of the bandwidth in the machine's facts, not of a measured one. It can be above
    100, since data stays in L2 between launches where it fits.
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
) -> Report:
    """Time every layer, its values checked first; empty ones are left out.

    Raises BuildError for wrong values, DeviceError where CUDA refuses.
    """
    rows = []
    todo = [layer for layer in layers if not layer.spec.is_empty]
    for number, layer in enumerate(todo):
        progress(layer.name, number, len(todo))
        rows.append(_row(library, layer, machine, rounds))
    return Report(tuple(rows), library.variant.machine, str(library.gpu.device), rounds)


def _row(library: GpuLibrary, layer: Layer, machine: Machine, rounds: int) -> Row:
    spec, gpu = layer.spec, library.gpu
    kernel = library[spec.key]
    gpu_check.check(kernel)
    arguments = oracle.random_arguments(spec, seed=0)
    here = {name: gpu.upload(array) for name, array in arguments.items()}
    bound = kernel.bind(here["filter"], here.get("bias"))
    out = gpu.upload(np.zeros(spec.output_shape, oracle.numpy_dtype(spec.out_dtype)))
    launch = gpu_timing.launcher(bound, here["data"], here.get("residual"), out)
    times = gpu_timing.seconds(gpu, launch, rounds)
    made = Compiled(kernel.entry.record or "default", kernel.schedule, kernel.decisions)
    return row(layer, made, times, machine)


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
