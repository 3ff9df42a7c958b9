"""Whole models in turn, ours and other runtimes', each in a process of its own, as `race` does for layers."""

from __future__ import annotations

import os
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvmconv import runtime
from tvmconv.building.builder import Progress
from tvmconv.bundle import manifest
from tvmconv.bundle.model_entries import ModelEntry
from tvmconv.errors import TvmconvError
from tvmconv.measuring.peers import contender
from tvmconv.measuring.peers.library_timer import alone
from tvmconv.measuring.peers.race import OURS, environment
from tvmconv.measuring.process.candidate import Failure
from tvmconv.measuring.process.worker import Worker
from tvmconv.models import comparing, runtimes
from tvmconv.models.foreign.opened import Opened, Request
from tvmconv.models.graph import Array
from tvmconv.runtime import arrays

# Of one contender in one round: a hundred calls of a small model; a large one is called three times.
_SLICE_MS = 100.0
_TIMEOUT_SECONDS = 300.0
_WARMING_CALLS = 5
_LONGEST_REASON = 300  # characters


@dataclass(frozen=True)
class ModelRace:
    """One model and every contender's times.

    Attributes:
        seconds: by contender, the fastest call of each round. Where other processes want the core, most calls
            of more than a millisecond hold one of their time slices, of 4 ms, the longer ones the more often.
        absent: by contender, why it has no time.
        errors: by contender other than ours, the largest difference of its outputs from ours, of the
            output's largest value.
        threads, rounds: of a call; how many.
    """

    threads: int
    rounds: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Median over the rounds, in seconds."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str) -> float:
        """How many times as long as ours ``name`` takes: the median of the rounds' ratios."""
        pairs = zip(self.seconds[name], self.seconds[OURS], strict=True)
        return statistics.median(theirs / mine for theirs, mine in pairs)


class ModelTimer:
    """What a timing process does with a model: ``path`` is ours compiled, or a file for a runtime."""

    def __init__(self, name: str, path: str, entry: ModelEntry, seed: int, threads: int) -> None:
        alone(threads)
        os.dup2(2, 1)  # converters log on stdout, where the command writes its result
        self._inputs = comparing.random_inputs(entry.inputs, seed)
        self._outputs = [each.name for each in entry.outputs]
        self._name, self._path, self._threads = name, path, threads
        self._opened: Opened | None = None

    def prepare(self) -> list[Array]:
        """Make the model ready, call it once, and return its outputs."""
        if self._name == OURS:
            self._opened = _ours(self._path, self._inputs, self._threads)
        else:
            wanted = Request(Path(self._path), self._inputs, self._outputs, self._threads)
            self._opened = runtimes.opened(self._name, wanted)
        self._opened.call()
        return self._opened.results()

    def seconds(self, least_ms: float) -> float:
        """Time of the fastest call of as many as fill ``least_ms``, after some that warm the caches."""
        if self._opened is None:
            raise TvmconvError("prepare the model first")
        call = self._opened.call
        for _ in range(_WARMING_CALLS):
            call()
        return contender.seconds(call, least_ms, min)


def _ours(path: str, inputs: Mapping[str, Array], threads: int) -> Opened:
    """A compiled model that writes to the same arrays again and again, as the other runtimes do."""
    model: Any = runtime.load(path, threads=threads)
    given = [arrays.aligned_copy(inputs[each.name]) for each in model.inputs]
    first = model(*given)
    out = first if isinstance(first, tuple) else (first,)
    return Opened(lambda: model(*given, out=out), lambda: list(out))


def race(
    ours: Path,
    model: Path | None,
    names: Sequence[str],
    threads: int,
    rounds: int,
    progress: Progress,
    seed: int = 0,
) -> ModelRace:
    """Time the compiled model ``ours`` beside the runtimes ``names``, which open the file ``model``.

    A runtime that fails, or whose outputs on the same random inputs are not ours within
    `comparing.TOLERANCE`, has no time, and `ModelRace.absent` says why. Raises TvmconvError where our own
    process fails.
    """
    entry = manifest.read_manifest(ours).model
    if entry is None:
        raise ValueError(f"{ours} holds kernels, no model")
    files = {OURS: str(ours), **{name: str(model) for name in names}}
    workers = {
        name: Worker(ModelTimer, (name, file, entry, seed, threads), environment(threads))
        for name, file in files.items()
    }
    raced = ModelRace(threads, rounds)
    try:
        _prepare(workers, raced, progress)
        for number in range(rounds):
            for name in list(raced.seconds):
                progress(f"round {number + 1} of {rounds}: {name}", number, rounds)
                _time(workers[name], name, raced)
    finally:
        for worker in workers.values():
            worker.close()
    return raced


def _prepare(workers: Mapping[str, Worker], raced: ModelRace, progress: Progress) -> None:
    """Open the model everywhere, compare the outputs with ours, and stop all processes."""
    mine: list[Array] = []
    for at, (name, worker) in enumerate(workers.items()):
        progress(f"preparing {name}", at, len(workers))
        answer = worker.ask(_TIMEOUT_SECONDS, "prepare")
        if isinstance(answer, Failure):
            _lost(name, answer.text, raced)
            continue
        mine = mine or answer
        found = [
            comparing.difference(name, _shaped(made, right), right.astype("float64"))
            for made, right in zip(answer, mine, strict=False)
        ]
        worst = max((each.relative for each in found), default=0.0)
        if name != OURS:
            raced.errors[name] = worst
        if len(answer) != len(mine) or not all(each.passes for each in found):
            _lost(name, f"its outputs are not ours: they are off by {worst:.1e}", raced)
            continue
        raced.seconds[name] = []
        worker.pause()


def _shaped(made: Array, right: Array) -> Array:
    """Without the axes of length 1 that a runtime adds or drops: ncnn has images without a batch."""
    same = [n for n in made.shape if n != 1] == [n for n in right.shape if n != 1]
    return made.reshape(right.shape) if same else made


def _time(worker: Worker, name: str, raced: ModelRace) -> None:
    worker.resume()
    answer = worker.ask(_TIMEOUT_SECONDS, "seconds", _SLICE_MS)
    if isinstance(answer, Failure):
        del raced.seconds[name]
        _lost(name, answer.text, raced)
    else:
        raced.seconds[name].append(answer)
        worker.pause()


def _lost(name: str, why: str, raced: ModelRace) -> None:
    if name == OURS:
        raise TvmconvError(f"the compiled model failed in its own process: {why}")
    raced.absent[name] = textwrap.shorten(why, _LONGEST_REASON, placeholder=" ...")
