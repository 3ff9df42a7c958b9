"""Times the kernels of a bundle, each against the roof measured beside it in the same round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tvmconv import hardware
from tvmconv.building.builder import Progress
from tvmconv.checking import oracle
from tvmconv.hardware import Machine, host
from tvmconv.measuring.bench.rows import LEAST_MS, Compiled, CpuReport, CpuRow, cpu_row
from tvmconv.measuring.roof import bounds, roof_loops, timing
from tvmconv.measuring.roof import probe as roof
from tvmconv.measuring.roof.probe import Roof
from tvmconv.problem.calling import Role
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.workloads import Layer
from tvmconv.runtime import Library, arrays, pools, tensors


class _Prepared:
    """A kernel with aligned random arguments, checked against the oracle, ready to be timed."""

    def __init__(self, library: Library, layer: Layer, machine: Machine) -> None:
        spec = layer.spec
        self.layer, self.kernel = layer, library[spec.key]
        entry = self.kernel.entry
        self.made = Compiled(entry.record or "default", entry.schedule, dict(entry.decisions))
        self._work = work(spec, self.made, machine)
        arguments = oracle.random_arguments(spec, seed=0)
        data = arrays.aligned_copy(arguments["data"])
        residual = arrays.aligned_copy(arguments["residual"]) if spec.residual else None
        bound = self.kernel.bind(**self.kernel.signature.keywords(arguments, Role.CONSTANT))
        out = arrays.empty_aligned(spec.output_shape, tensors.numpy_dtype(spec.out_dtype))
        bound(data, residual, out=out)
        oracle.assert_close(spec, oracle.conv(spec, **arguments), out)
        self.pointers = bound.pointers(data, residual, out)
        self._module, self._arrays = library.module, (data, residual, out)
        self.forget()

    def forget(self) -> None:
        """Drop all rounds."""
        self.seconds: list[float] = []
        self._shares: list[tuple[float, float]] = []

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
        self._shares.append((self._work / seconds / peak, self._work / seconds / fed))

    def row(self, measured: Roof) -> CpuRow:
        """What came out.

        A look that a neighbour has slowed makes a share too large: then the roof counts, the highest look.
        """
        rate = self._work / statistics.median(self.seconds)
        whole = rate / measured.flops_per_second, rate / measured.fed_flops_per_second
        beside = [statistics.median(each) for each in zip(*self._shares, strict=True)]
        shares = [
            each if each <= bounds.MOST_OF_A_ROOF else min(each, roof)
            for each, roof in zip(beside, whole, strict=True)
        ]
        return cpu_row(
            self.layer, self.made, self.seconds, (shares[0], shares[1]), measured, self._work
        )


def work(spec: ConvSpec, made: Compiled, machine: Machine) -> float:
    """As `bounds.work`, of a kernel that was made for a machine."""
    _, pack = hardware.find_machine(machine.name)
    return bounds.work(spec, made.schedule, made.decisions, machine, pack)


def bench(
    library: Library,
    layers: Sequence[Layer],
    machine: Machine,
    rounds: int = 7,
    progress: Progress = lambda _what, _done, _total: None,
    cache: str = "warm",
) -> CpuReport:
    """Time every layer ``rounds`` times, all layers in turn; values are checked first.

    What is faster than a roof is timed again, and so is the roof. Empty layers are left out: they run no
    kernel. Raises BuildError for wrong values.
    """
    pools.use_threads(library.threads)  # also the roof's loops run on so many
    loops = roof_loops.compiled(machine, library.threads)
    probe = roof.Probe(machine, library.threads, loops)
    measured = probe.roof()
    prepared = []
    todo = [layer for layer in layers if not layer.spec.is_empty]
    for number, layer in enumerate(todo):
        progress("checking values", number, len(todo))
        prepared.append(_Prepared(library, layer, machine))

    def run(kernels: Sequence[_Prepared], what: str) -> None:
        for number in range(rounds):
            for at, kernel in enumerate(kernels):
                done, total = number * len(kernels) + at, rounds * len(kernels)
                progress(f"{what} {number + 1} of {rounds}", done, total)
                kernel.run(probe, cache)

    run(prepared, "round")
    doubtful = [kernel for kernel in prepared if kernel.row(measured).above]
    if doubtful:
        measured = measured.highest(probe.roof())
        for kernel in doubtful:
            kernel.forget()
        run(doubtful, "what is faster than a roof, again: round")
    return CpuReport(
        rows=tuple(kernel.row(measured) for kernel in prepared),
        machine=library.variant.machine,
        rounds=rounds,
        cache=cache,
        roof=measured,
        cpu=host.cpu_name(),
        threads=library.threads,
    )
