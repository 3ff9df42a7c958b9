"""Searches the decisions of one spec: which candidates to measure next, and whether it is worth while.

The order: the schedules' defaults; decisions that won on this layer or on the nearest ones before; then
batches of what the cost model expects to be fastest in the whole space, of the best candidates'
neighbours (coordinate descent: one decision changed), and a few at random.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tvmconv import hardware
from tvmconv.hardware import HardwarePack, Machine
from tvmconv.measuring.process.candidate import Candidate, Measurement
from tvmconv.problem.spec import ConvSpec
from tvmconv.tuning import features

if TYPE_CHECKING:
    from tvmconv.tuning.model import CostModel

BATCH = 16  # measured between two trainings of the model
_DESCENT = 4  # of a batch: neighbours of the best
_EXPLORE = 2  # of a batch: at random, whatever the model says
_PARENTS = 2  # best candidates whose neighbours are tried
# The gain of a batch is expected to be the mean gain of the last ones; before the first, these.
PATIENCE = (
    5  # of 3 a third of all searches ended 8 % from the best (scripts/replay_search.py, 2026-11)
)
_HOPED = 0.05
# Less than measurements scatter is no gain.
_NOISE = 0.005
# A batch from which less is expected ends the search.
_WORTH_A_BATCH = 0.002


def all_candidates(spec: ConvSpec, machine: Machine, pack: HardwarePack) -> list[Candidate]:
    """Every legal point of every schedule that accepts the spec."""
    return [
        Candidate(schedule.name, decisions)
        for schedule in hardware.schedules_for(spec, machine, pack)
        for decisions in hardware.space(schedule, spec, machine)
    ]


def defaults(spec: ConvSpec, machine: Machine, pack: HardwarePack) -> list[Candidate]:
    """The default of each schedule, the one that is used without a record first."""
    return [
        Candidate(schedule.name, schedule.default(spec, machine))
        for schedule in hardware.schedules_for(spec, machine, pack)
    ]


class LayerSearch:
    """The state of one spec's search: `propose` candidates, `note` what came out, `promise`."""

    def __init__(
        self,
        spec: ConvSpec,
        machine: Machine,
        pack: HardwarePack,
        model: CostModel,
        patience: int = PATIENCE,
    ) -> None:
        self.spec = spec
        self.trials: list[Measurement] = []
        self._model, self._patience = model, patience
        self._first = defaults(spec, machine, pack)
        self._space = all_candidates(spec, machine, pack)
        self._rows = features.rows(spec, machine, pack, self._space)
        self._places = {candidate.identity: at for at, candidate in enumerate(self._space)}
        self._codes = _codes(self._space)
        self._fresh = np.ones(len(self._space), bool)
        self._measured: set[object] = set()
        self._gains: list[float] = []
        self._best_before: float | None = None
        self._draw = random.Random(spec.key)  # noqa: S311 - reproducible on purpose

    @property
    def default(self) -> Candidate:
        """What is used without a record."""
        return self._first[0]

    @property
    def default_trial(self) -> Measurement | None:
        """The default's measurement, once there is one."""
        mine = self.default.identity
        return next((trial for trial in self.trials if trial.candidate.identity == mine), None)

    @property
    def default_seconds(self) -> float | None:
        """Time of the default, once it is measured."""
        return self.default_trial.seconds if self.default_trial else None

    @property
    def default_error(self) -> str | None:
        """Why the default failed, if it did."""
        mine = self.default.identity
        return next((t.error for t in self.failures if t.candidate.identity == mine), None)

    @property
    def best(self) -> Measurement | None:
        """The fastest so far."""
        ranked = self.ranked()
        return ranked[0] if ranked else None

    @property
    def failures(self) -> list[Measurement]:
        """Trials without a time."""
        return [trial for trial in self.trials if trial.seconds is None]

    def ranked(self) -> list[Measurement]:
        """Good trials, fastest first."""
        good = [trial for trial in self.trials if trial.seconds is not None]
        return sorted(good, key=lambda trial: trial.seconds or 0.0)

    def resume(self, trials: Sequence[Measurement], batch: int | None = None) -> None:
        """Take over trials of an earlier session; what they promised is forgotten.

        Unless ``batch`` is given: then they promise what they would have, had stock been taken after
        every so many.

        Each candidate once, and only those that can be proposed: schedules change, and a finalist that
        is gone could not be compared.
        """
        fresh = {
            trial.candidate.identity: trial
            for trial in trials
            if trial.candidate.identity in self._places
            and trial.candidate.identity not in self._measured
        }
        known = list(fresh.values())
        for first in range(0, len(known), batch or max(1, len(known))):
            self._note(known[first : first + batch] if batch else known)
            if batch:
                self.end_batch()
        self._best_before = self.best.seconds if self.best else None

    def suggest(self, candidates: Sequence[Candidate]) -> None:
        """Have legal candidates tried next, before what the model proposes."""
        self._first += candidates

    def note(self, trial: Measurement) -> None:
        """Take one result."""
        self._note([trial])

    def end_batch(self) -> None:
        """Take stock: what has the batch gained?"""
        best = self.best.seconds if self.best else None
        if best and self._best_before:
            gain = math.log(self._best_before / best)
            self._gains.append(gain if gain > _NOISE else 0.0)
        self._best_before = best

    def promise(self) -> float:
        """Expected gain of another batch, as a fraction of the best time; 0 when the search is over.

        Where even the default fails there is nothing to gain over, and no record can come of it.
        """
        if not self._fresh.any() or self.default_error is not None:
            return 0.0
        recent = self._gains[-self._patience :]
        recent = [*[_HOPED] * (self._patience - len(recent)), *recent]
        expected = sum(recent) / len(recent)
        return expected if expected >= _WORTH_A_BATCH else 0.0

    def propose(self, count: int = BATCH) -> list[Candidate]:
        """Return up to ``count`` candidates that were not measured yet."""
        chosen: dict[object, Candidate] = {}

        def take(candidates: Sequence[Candidate], most: int) -> None:
            for candidate in candidates:
                if most <= 0 or len(chosen) >= count:
                    return
                if candidate.identity not in self._measured and candidate.identity not in chosen:
                    chosen[candidate.identity] = candidate
                    most -= 1

        take(self._first, count)
        expected = self._expected()
        if expected is not None:
            by_score = np.argsort(-expected, kind="stable")
            take(
                self._at(by_score[self._fresh[by_score]][: 2 * count]), count - _DESCENT - _EXPLORE
            )
        take(self._near_the_best(expected), _DESCENT)
        fresh = [int(place) for place in np.flatnonzero(self._fresh)]
        take(self._at(self._draw.sample(fresh, min(len(fresh), 2 * count))), count)
        return list(chosen.values())

    def _expected(self) -> npt.NDArray[np.float64] | None:
        return self._model.scores(self._rows)

    def _near_the_best(self, expected: npt.NDArray[np.float64] | None) -> list[Candidate]:
        """Fresh neighbours of the best, those that the model likes first; else in random order."""
        found: list[Candidate] = []
        for parent in self.ranked()[:_PARENTS]:
            at = self._places.get(parent.candidate.identity)
            if at is None:
                continue
            differing = (self._codes != self._codes[at]).sum(axis=1)
            near = [int(place) for place in np.flatnonzero((differing == 1) & self._fresh)]
            self._draw.shuffle(near)
            if expected is not None:
                near.sort(key=lambda place: -expected[place])
            found += self._at(near)
        return found

    def _at(self, places: Sequence[int] | npt.NDArray[np.intp]) -> list[Candidate]:
        return [self._space[int(place)] for place in places]

    def _note(self, trials: Sequence[Measurement]) -> None:
        self.trials.extend(trials)
        places, seconds = [], []
        for trial in trials:
            self._measured.add(trial.candidate.identity)
            at = self._places.get(trial.candidate.identity)
            if at is not None:
                self._fresh[at] = False
                places.append(at)
                seconds.append(trial.seconds)
        self._model.add(self.spec.key, self._rows[places], seconds)


def _codes(space: Sequence[Candidate]) -> npt.NDArray[np.int32]:
    """Each candidate's schedule and decisions as small numbers, equal where the decisions are."""
    numbers: dict[object, int] = {}
    width = max((len(candidate.decisions) for candidate in space), default=0)
    codes = np.zeros((len(space), width + 1), np.int32)
    for row, candidate in zip(codes, space, strict=True):
        row[0] = numbers.setdefault(candidate.schedule, len(numbers) + 1)
        # Two schedules differ in every decision: none is the other's neighbour.
        for at, item in enumerate(candidate.decisions.items(), start=1):
            row[at] = numbers.setdefault((candidate.schedule, item), len(numbers) + 1)
    return codes
