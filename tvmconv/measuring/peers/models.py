"""Whole models in turn, ours and other runtimes', each in a process of its own, as `race` does for layers."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvmconv import runtime
from tvmconv.building.builder import Progress
from tvmconv.bundle.model_entries import TensorEntry
from tvmconv.errors import TvmconvError
from tvmconv.measuring.peers import contender
from tvmconv.measuring.peers.race import OURS, environment
from tvmconv.measuring.process.candidate import Failure
from tvmconv.measuring.process.worker import Worker
from tvmconv.models import comparing, runtimes
from tvmconv.models.graph import Array
from tvmconv.models.runtimes import Opened
from tvmconv.runtime import arrays

# Of one contender in one round: some ten calls of a small model; a large one is called three times.
_SLICE_MS = 50.0
_TIMEOUT_SECONDS = 300.0
_WARMING_CALLS = 5


@dataclass(frozen=True)
class ModelRace:
    """One model and every contender's times.

    Attributes:
        seconds: by contender, the median call of each round.
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

    def __init__(
        self, name: str, path: str, entries: Sequence[TensorEntry], seed: int, threads: int
    ) -> None:
        # Runtimes greet, warn and log on stderr; what fails is said in the answer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        self._inputs = comparing.random_inputs(entries, seed)
        self._name, self._path, self._threads = name, path, threads
        self._opened: Opened | None = None

    def prepare(self) -> list[Array]:
        """Make the model ready, call it once, and return its outputs."""
        if self._name == OURS:
            self._opened = _ours(self._path, self._inputs, self._threads)
        else:
            self._opened = runtimes.opened(self._name, self._path, self._inputs, self._threads)
        self._opened.call()
        return self._opened.results()

    def seconds(self, least_ms: float) -> float:
        """Median time of one call, of as many as fill ``least_ms``, after some that warm the caches."""
        if self._opened is None:
            raise TvmconvError("prepare the model first")
        call = self._opened.call
        for _ in range(_WARMING_CALLS):
            call()
        return contender.seconds(call, least_ms)


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
    entries = runtime.load(ours, threads=1).inputs
    files = {OURS: str(ours), **{name: str(model) for name in names}}
    workers = {
        name: Worker(ModelTimer, (name, file, entries, seed, threads), environment(threads))
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
            comparing.difference(name, made, right.astype("float64"))
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
    raced.absent[name] = why
