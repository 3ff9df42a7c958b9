"""Searches the decisions of one spec: default first, then what the cost model expects to be fast."""

from __future__ import annotations

import datetime
import importlib.metadata
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tvmconv import hardware, host
from tvmconv.hardware import HardwarePack, Machine
from tvmconv.spec import ConvSpec
from tvmconv.tuning.log import Record
from tvmconv.tuning.measure import Candidate, Measurement, Measurer

if TYPE_CHECKING:
    from tvmconv.tuning.model import CostModel

BATCH = 8  # measured between two trainings of the model
_POOL = 40  # scheduled and scored for each batch: 10 ms each
_EXPLORE = 2  # of a batch, taken at random whatever the model says
_PARENTS = 3  # best candidates whose neighbours enter the pool
_FINALISTS = 5
_FINAL_ROUNDS = 11
# Interleaved medians agree to about 1 %; a smaller gain would be noise.
WORTHWHILE = 1.02


@dataclass(frozen=True)
class Budget:
    """When a spec's search ends: after ``trials`` candidates or at ``deadline`` (time.monotonic)."""

    trials: int
    deadline: float

    def left(self, done: int) -> bool:
        """Whether there is room for another candidate."""
        return done < self.trials and time.monotonic() < self.deadline


@dataclass
class Progress:
    """How far the search of one spec is; handed to the reporter after every candidate."""

    spec: ConvSpec
    trials: int = 0
    failures: int = 0
    default_seconds: float | None = None
    best_seconds: float | None = None
    first_error: str | None = None
    done: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a search found: a record when it beats the default, and every measurement.

    ``default_is_best`` says that the finalists were timed and none was faster, so that an older record
    has no claim any more.
    """

    spec: ConvSpec
    record: Record | None
    measurements: list[Measurement] = field(default_factory=list)
    reason: str = ""
    default_is_best: bool = False


Reporter = Callable[[Progress], None]


def all_candidates(spec: ConvSpec, machine: Machine, pack: HardwarePack) -> list[Candidate]:
    """Every legal point of every schedule that accepts the spec."""
    return [
        Candidate(schedule.name, decisions)
        for schedule in hardware.schedules_for(spec, machine, pack)
        for decisions in hardware.space(schedule, spec, machine)
    ]


def neighbours(candidate: Candidate, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates of the same schedule that differ in exactly one decision."""
    mine = candidate.decisions
    return [
        other
        for other in candidates
        if other.schedule == candidate.schedule
        and sum(other.decisions[name] != value for name, value in mine.items()) == 1
    ]


def search(
    spec: ConvSpec,
    machine: Machine,
    pack: HardwarePack,
    measurer: Measurer,
    model: CostModel,
    budget: Budget,
    report: Reporter = lambda _progress: None,
    known: Sequence[Candidate] = (),
) -> Outcome:
    """Measure candidates until the budget is spent, then the best ones against the default.

    The default comes first, then ``known`` (decisions of older records), then batches of `BATCH`: the
    model scores a pool of the best ones' neighbours and of random points, the best scored are taken
    and a few at random. Values are checked for every candidate. The finalists and the default are
    timed again, interleaved, and the winner once more in a new process; a record is made only of one
    that is at least `WORTHWHILE` faster both times.
    """
    draw = random.Random(spec.key)  # noqa: S311 - reproducible on purpose
    candidates = all_candidates(spec, machine, pack)
    schedule = hardware.schedules_for(spec, machine, pack)[0]
    default = Candidate(schedule.name, schedule.default(spec, machine))
    seen: set[object] = set()
    measurements: list[Measurement] = []
    progress = Progress(spec)

    def run(batch: Sequence[Candidate]) -> list[Measurement]:
        new = []
        for candidate in batch:
            if candidate.identity in seen or not budget.left(len(measurements)):
                continue
            seen.add(candidate.identity)
            measurement = measurer.measure(spec, candidate)
            new.append(measurement)
            measurements.append(measurement)
            _note(progress, measurement, candidate is default)
            report(progress)
        return new

    batch: list[Candidate] = [default, *known]
    near = neighbours(default, candidates)
    batch += draw.sample(near, min(len(near), BATCH - len(batch))) if len(batch) < BATCH else []
    while batch and budget.left(len(measurements)):
        model.learn(spec, run(batch))
        batch = _next_batch(spec, candidates, measurements, seen, model, draw)
    progress.done = True
    outcome = _conclude(spec, machine, measurer, default, measurements)
    report(progress)
    return outcome


def _note(progress: Progress, measurement: Measurement, is_default: bool) -> None:
    progress.trials += 1
    if measurement.seconds is None:
        progress.failures += 1
        progress.first_error = progress.first_error or measurement.error
        return
    if is_default:
        progress.default_seconds = measurement.seconds
    best = progress.best_seconds
    progress.best_seconds = min(best, measurement.seconds) if best else measurement.seconds


def _ranked(measurements: Sequence[Measurement]) -> list[Measurement]:
    good = [m for m in measurements if m.seconds is not None]
    return sorted(good, key=lambda m: m.seconds or 0.0)


def _next_batch(
    spec: ConvSpec,
    candidates: Sequence[Candidate],
    measurements: Sequence[Measurement],
    seen: set[object],
    model: CostModel,
    draw: random.Random,
) -> list[Candidate]:
    fresh = [c for c in candidates if c.identity not in seen]
    parents = [m.candidate for m in _ranked(measurements)[:_PARENTS]]
    near = [c for parent in parents for c in neighbours(parent, fresh)]
    pool = list({c.identity: c for c in draw.sample(near, min(len(near), _POOL // 2))}.values())
    pool += draw.sample(fresh, min(len(fresh), _POOL - len(pool)))
    best = model.rank(spec, pool)[: BATCH - _EXPLORE]
    return best + draw.sample(fresh, min(len(fresh), _EXPLORE))


def _conclude(
    spec: ConvSpec,
    machine: Machine,
    measurer: Measurer,
    default: Candidate,
    measurements: list[Measurement],
) -> Outcome:
    """Time the finalists against the default in turn, and keep a winner."""
    failed = next((m.error for m in measurements if m.candidate is default and m.error), None)
    if failed:
        return Outcome(
            spec, None, measurements, f"the default itself fails, please report: {failed}"
        )
    finalists = [m.candidate for m in _ranked(measurements) if m.candidate is not default]
    if not finalists:
        errors = sorted({m.error for m in measurements if m.error})
        reason = f"no candidate but the default could be measured: {errors[:1]}"
        return Outcome(spec, None, measurements, reason)
    compared = [default, *finalists[:_FINALISTS]]
    times = measurer.interleave(spec, compared, _FINAL_ROUNDS)
    if isinstance(times, str):
        return Outcome(spec, None, measurements, f"the finalists could not be timed: {times}")
    medians = [statistics.median(rounds) for rounds in times]
    winner = compared[min(range(1, len(medians)), key=medians.__getitem__)]
    # Again in another process: where memory lies decides about 10 % of a small layer's time.
    measurer.close()
    again = measurer.interleave(spec, [default, winner], _FINAL_ROUNDS)
    if isinstance(again, str):
        return Outcome(spec, None, measurements, f"the winner could not be timed again: {again}")
    before, after = (statistics.median(rounds) for rounds in again)
    gain = min(medians[0] / min(medians[1:]), before / after)
    if gain < WORTHWHILE:
        reason = f"nothing beats the default (best {gain:.3f} x)"
        return Outcome(spec, None, measurements, reason, default_is_best=True)
    record = Record(
        key=spec.key,
        schedule=winner.schedule,
        decisions=dict(winner.decisions),
        microseconds=round(after * 1e6, 3),
        default_microseconds=round(before * 1e6, 3),
        machine=machine.name,
        cpu=host.cpu_name(),
        threads=measurer.threads,
        tvm=importlib.metadata.version("apache-tvm"),
        date=datetime.date.today().isoformat(),
        trials=len(measurements),
        measured=f"here, warm cache, median of {_FINAL_ROUNDS} rounds interleaved with the default, "
        "the gain confirmed in two processes",
    )
    return Outcome(spec, record, measurements)
