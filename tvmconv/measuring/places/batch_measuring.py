"""Measures a batch of candidates on the machine it is for, with the runtime alone.

The measuring is the tuner's own (`running`): values are checked with the oracle before a time counts, times
are taken beside the layer's default, and a candidate that crashes or hangs costs only itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tvmconv import writing
from tvmconv.errors import BatchError
from tvmconv.hardware import host
from tvmconv.measuring.places import batch as batches
from tvmconv.measuring.places import batch_results as files
from tvmconv.measuring.places.batch import Batch, Kernel, LayerKernels
from tvmconv.measuring.places.batch_results import Final, Header, Results, ResultsWriter, Timed
from tvmconv.measuring.process import device
from tvmconv.measuring.process.candidate import Built, Candidate, Failure, Measurement
from tvmconv.measuring.process.device import Processor
from tvmconv.measuring.process.libraries import Libraries
from tvmconv.measuring.process.runner import Conditions, Runner
from tvmconv.measuring.roof import gpu as gpu_roof
from tvmconv.problem.spec import ConvSpec
from tvmconv.version import __version__

# A layer's first kernel, for which the oracle computes what must come out: minutes on a slow core.
_FIRST_SECONDS = 600.0
# Every other gets this many times what that took, and at least so long.
_PATIENCE, _LEAST_SECONDS = 5.0, 10.0

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Progress:
    """How far the measuring is: candidates measured, by now, of all; layers that are finished."""

    done: int
    all: int
    failed: int
    layers: int
    of_layers: int


def measure(tar: Path, output: Path, report: Report, timeout_seconds: float | None = None) -> None:
    """Measure what of a batch is not in the results file yet, and write it there.

    ``report`` is told (what, how many candidates, of how many). A candidate gets ``timeout_seconds``, or
    by default five times what the default of its layer took, checking included, and 10 s at least.
    Raises BatchError when the batch or the file is torn or belongs to something else, or the file cannot
    be written; IncompatibleMachineError for another machine's batch.
    """
    host.require_64_bits()
    with writing.scratch("tvmconv-measure-") as scratch:
        batch = batches.unpack(tar, scratch)
        with files.opened(output) as writer:
            if writer.begun:
                _require_same(writer.results.header, batch, output)
            _Measuring(batch, scratch, writer, report, timeout_seconds).all_layers()


def progress(batch: Batch, results: Results) -> Progress:
    """How far a results file has come."""
    todo = [k for layer in batch.layers for k in layer.kernels if k.seconds is None]
    failed = sum(timed.seconds is None for timed in results.timed.values())
    broken = {t.layer for t in results.timed.values() if t.kernel == 0 and t.seconds is None}
    finished = len(results.finals) + len(broken)
    return Progress(len(results.timed), len(todo), failed, finished, len(batch.layers))


def _require_same(header: Header, batch: Batch, output: Path) -> None:
    if header.batch != batch.name:
        raise BatchError(
            f"{output} has results of batch {header.batch}, this one is {batch.name}: give another "
            "--output"
        )
    ours, theirs = device.here(batch.machine), Processor(header.cpu, header.driver)
    if (theirs, header.features) != (ours, _features(batch)):
        raise BatchError(
            f"{output} was measured on {theirs}, this is {ours}: times of two machines do not compare. Give "
            "another --output."
        )


def _features(batch: Batch) -> tuple[str, ...]:
    """Of the CPU, where it is what this batch is measured on."""
    return () if batch.machine.gpu else tuple(sorted(host.cpu_features()))


class _Measuring:
    """A batch that is being measured."""

    def __init__(
        self,
        batch: Batch,
        folder: Path,
        writer: ResultsWriter,
        report: Report,
        timeout: float | None,
    ) -> None:
        self._batch, self._folder, self._writer = batch, folder, writer
        self._report, self._timeout = report, timeout
        libraries = Libraries(
            folder / batch.runtime,
            folder / batch.roof if batch.roof else None,
            folder / batch.cuda_runtime if batch.cuda_runtime else None,
        )
        conditions = Conditions(batch.threads, batch.cache)
        self._runner = Runner(batch.machine, libraries, conditions)

    def all_layers(self) -> None:
        try:
            if not self._writer.begun:
                self._writer.add(self._header())
            for layer in self._batch.layers:
                if layer.key not in self._writer.results.finals:
                    self._layer(layer)
        finally:
            self._runner.close()

    def _header(self) -> Header:
        batch = self._batch
        if batch.machine.gpu is None:
            peak = self._runner.peak()
        else:
            dtypes = {ConvSpec.from_key(layer.key).precision for layer in batch.layers}
            peak = gpu_roof.peak(batch.machine.gpu, dtypes)
        name, features, here = batch.machine.name, _features(batch), device.here(batch.machine)
        return Header(batch.name, name, here.name, features, here.driver, peak, __version__)

    def _layer(self, layer: LayerKernels) -> None:
        if self._failed(layer, 0):
            return
        self._runner.timeout_seconds = self._timeout or _FIRST_SECONDS
        begin = time.monotonic()
        if self._seconds(layer, 0) is None:
            self._measure(layer, [0], (None, 0.0))
        else:  # measured before; run it all the same to see how long checking takes here
            self._runner.measure(ConvSpec.from_key(layer.key), self._built(layer.kernels[0]))
        default = self._seconds(layer, 0)
        if default is None:
            return  # nothing to compare with
        took = time.monotonic() - begin
        self._runner.timeout_seconds = self._timeout or max(_LEAST_SECONDS, _PATIENCE * took)
        todo = [
            place
            for place in range(1, len(layer.kernels))
            if self._seconds(layer, place) is None and not self._failed(layer, place)
        ]
        self._measure(layer, todo, (self._built(layer.kernels[0]), default))
        self._writer.add(self._final(layer))

    def _measure(
        self, layer: LayerKernels, places: list[int], beside: tuple[Built | None, float]
    ) -> None:
        """Measure kernels of a layer and write each down."""
        known = [self._seconds(layer, place) for place in range(len(layer.kernels))]
        best = min((seconds for seconds in known if seconds is not None), default=math.inf)
        waiting = iter(places)

        def done(measured: Measurement) -> None:
            place = next(waiting)
            self._writer.add(Timed(layer.key, place, measured.seconds, measured.error))
            how_far = progress(self._batch, self._writer.results)
            self._report(layer.key, how_far.done, how_far.all)

        pairs: list[tuple[Candidate, Built | Failure]] = [
            (layer.kernels[place].candidate, self._built(layer.kernels[place])) for place in places
        ]
        self._runner.measure_each(ConvSpec.from_key(layer.key), pairs, best, beside, done)

    def _final(self, layer: LayerKernels) -> Final:
        """Compare the fastest with the default, in turn."""
        ranked = sorted(
            (seconds, place)
            for place in range(1, len(layer.kernels))
            if (seconds := self._seconds(layer, place)) is not None
        )
        compared = (0, *(place for _, place in ranked[: self._batch.finalists]))
        if len(compared) == 1:
            return Final(layer.key, compared, ())
        built = [self._built(layer.kernels[place]) for place in compared]
        batch, spec = self._batch, ConvSpec.from_key(layer.key)
        times = self._runner.compare(spec, built, batch.rounds, batch.processes)
        if isinstance(times, Failure):
            return Final(layer.key, compared, (), times.text)
        processes = [tuple(tuple(rounds) for rounds in process) for process in times]
        return Final(layer.key, compared, tuple(processes))

    def _built(self, kernel: Kernel) -> Built:
        return kernel.built.placed(self._folder)

    def _seconds(self, layer: LayerKernels, place: int) -> float | None:
        timed = self._writer.results.timed.get((layer.key, place))
        return timed.seconds if timed is not None else layer.kernels[place].seconds

    def _failed(self, layer: LayerKernels, place: int) -> bool:
        timed = self._writer.results.timed.get((layer.key, place))
        return timed is not None and timed.seconds is None
