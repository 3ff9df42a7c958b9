"""Times the kernels of a bundle, each against the roof measured beside it in the same round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tvmconv.building.builder import Progress
from tvmconv.checking import oracle
from tvmconv.hardware import Machine, host
from tvmconv.measuring.bench.rows import LEAST_MS, Compiled, CpuReport, CpuRow, cpu_row
from tvmconv.measuring.roof import probe as roof
from tvmconv.measuring.roof import roof_loops, timing
from tvmconv.measuring.roof.probe import Roof
from tvmconv.problem.workloads import Layer
from tvmconv.runtime import Library, arrays, pools, tensors


class _Prepared:
    """A kernel with aligned random arguments, checked against the oracle, ready to be timed."""

    def __init__(self, library: Library, layer: Layer) -> None:
        spec = layer.spec
        self.layer, self.kernel = layer, library[spec.key]
        arguments = oracle.random_arguments(spec, seed=0)
        data = arrays.aligned_copy(arguments["data"])
        residual = arrays.aligned_copy(arguments["residual"]) if spec.residual else None
        weights = (arguments.get(name) for name in ("filter", "bias", "slopes"))
        bound = self.kernel.bind(*weights)
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
        fed = probe.fed_flops_per_second(LEAST_MS)
        called = self._module, self.layer.spec.key, self.pointers
        if cache == "cold":
            seconds = statistics.median(timing.cold_seconds(*called))
        else:
            (seconds,) = timing.seconds(*called, 1, LEAST_MS)
        peak = probe.flops_per_second(LEAST_MS)
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
) -> CpuReport:
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
    rows = tuple(_row(kernel, measured) for kernel in prepared)
    return CpuReport(
        rows=rows,
        machine=library.variant.machine,
        rounds=rounds,
        cache=cache,
        roof=measured,
        cpu=host.cpu_name(),
        threads=library.threads,
    )


def _row(prepared: _Prepared, measured: Roof) -> CpuRow:
    entry = prepared.kernel.entry
    kernel = Compiled(entry.record or "default", entry.schedule, dict(entry.decisions))
    shares = statistics.median(prepared.share_of_peak), statistics.median(prepared.share_of_fed)
    return cpu_row(prepared.layer, kernel, prepared.seconds, shares, measured)
