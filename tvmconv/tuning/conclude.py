"""Ends a layer's search: the finalists against the default, in turn, in two processes."""

from __future__ import annotations

import datetime
import importlib.metadata
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tvmconv.hardware import Machine
from tvmconv.measuring.places.place import Measurer, Place
from tvmconv.measuring.process.candidate import Candidate, Measurement
from tvmconv.measuring.process.device import Processor
from tvmconv.measuring.process.runner import Conditions
from tvmconv.problem.spec import ConvSpec
from tvmconv.records.record import CONFIRMED_DEFAULT, MEASURED, SIMULATED, Record, Times
from tvmconv.tuning.search import LayerSearch

FINALISTS = 8
ROUNDS = 11
PROCESSES = 2


@dataclass(frozen=True)
class Origin:
    """Where finalists were timed, as a record says it.

    Attributes:
        place: here, on boards, offline or in a simulation.
        machine: what the kernels were compiled for.
        processor: what they ran on.
        conditions: threads and caches.
    """

    place: Place
    machine: Machine
    processor: Processor
    conditions: Conditions


@dataclass(frozen=True)
class Outcome:
    """What a search found: a record if something beats the default, else the reason why not.

    Attributes:
        spec: the layer.
        record: what to keep, or None.
        trials: every measurement.
        gain: of the best finalist over the default, the smallest of the processes'; None where nothing
            was compared.
        reason: why there is no record.
        earlier: whether an earlier session found this.
        standing: where the default was not beaten, a record that says so.
    """

    spec: ConvSpec
    record: Record | None
    trials: Sequence[Measurement] = ()
    gain: float | None = None
    reason: str = ""
    earlier: bool = False
    standing: Record | None = None

    @property
    def default_is_best(self) -> bool:
        """Whether the default was compared and not beaten: an older record has no claim any more."""
        return self.record is None and self.gain is not None

    @property
    def untried(self) -> bool:
        """Whether nothing but the default was measured: the time was better spent on other layers."""
        return (
            self.record is None and len(self.trials) < 2 and not self.failures and not self.earlier
        )

    @property
    def failures(self) -> int:
        """Candidates that could not be compiled, crashed, hung or computed wrong values."""
        return sum(trial.seconds is None for trial in self.trials)


def conclude(
    search: LayerSearch, measurer: Measurer, place: Place, machine: Machine, conditions: Conditions
) -> Outcome:
    """Time the finalists and the default, compiled as they would be shipped, and keep a winner.

    Eleven rounds in each of two processes.
    """
    compared = [search.default, *(trial.candidate for trial in finalists(search))]
    processes: list[list[list[float]]] | str = []
    if search.default_error is None and len(compared) > 1:
        processes = measurer.interleave(search.spec, compared, ROUNDS, PROCESSES)
    origin = Origin(place, machine, measurer.processor, conditions)
    return decide(search, compared, processes, origin)


def finalists(search: LayerSearch) -> list[Measurement]:
    """The fastest but the default, fastest first."""
    mine = search.default.identity
    return [t for t in search.ranked() if t.candidate.identity != mine][:FINALISTS]


def decide(
    search: LayerSearch,
    compared: Sequence[Candidate],
    processes: Sequence[Sequence[Sequence[float]]] | str,
    origin: Origin,
) -> Outcome:
    """Return what the comparison says: ``compared`` is the default and the finalists.

    ``processes`` are the seconds by process, candidate and round, or an error as text. A finalist's gain
    is the smallest of its medians' ratios to the default's, of all processes; a record is made of the
    largest gain, if that is worthwhile.
    """
    spec = search.spec
    if search.default_error is not None:
        reason = f"the default itself fails, please report: {search.default_error}"
        return Outcome(spec, None, search.trials, reason=reason)
    if len(compared) < 2:
        return Outcome(spec, None, search.trials, reason=_nothing_measured(search))
    if isinstance(processes, str):
        reason = f"the finalists could not be timed: {processes}"
        return Outcome(spec, None, search.trials, reason=reason)
    medians = [[statistics.median(rounds) for rounds in times] for times in processes]
    gains = [
        min(process[0] / process[finalist] for process in medians)
        for finalist in range(1, len(compared))
    ]
    gain = max(gains)
    if gain < origin.place.worthwhile:
        reason = f"nothing beats the default (best {gain:.3f} x)"
        standing = _record(search, origin, search.default, _times(processes, 0))
        return Outcome(spec, None, search.trials, gain, reason, standing=standing)
    winner = 1 + gains.index(gain)
    record = _record(search, origin, compared[winner], _times(processes, winner))
    return Outcome(spec, record, search.trials, gain)


def _nothing_measured(search: LayerSearch) -> str:
    errors = list(dict.fromkeys(trial.error for trial in search.failures))
    if errors:
        return f"no candidate but the default could be measured: {errors[0]}"
    return "no time was left to measure anything but the default"


def _times(processes: Sequence[Sequence[Sequence[float]]], winner: int) -> Times:
    """The winner's and the default's, in microseconds of three decimals."""

    def of(place: int) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(round(each * 1e6, 3) for each in times[place]) for times in processes)

    return Times(chosen=of(winner), default=of(0))


def _record(search: LayerSearch, origin: Origin, winner: Candidate, times: Times) -> Record:
    place, conditions = origin.place, origin.conditions
    predicted = SIMULATED if place.name == SIMULATED else MEASURED
    return Record(
        key=search.spec.key,
        schedule=winner.schedule,
        decisions=dict(winner.decisions),
        microseconds=_mean(times.chosen),
        default_microseconds=_mean(times.default),
        how=CONFIRMED_DEFAULT if winner is search.default else predicted,
        machine=origin.machine.name,
        cpu=origin.processor.name,
        driver=origin.processor.driver,
        place=place.name,
        board=place.board,
        threads=conditions.threads,
        cache=conditions.cache,
        rounds=len(times.default[0]),
        trials=len(search.trials),
        tvm=importlib.metadata.version("apache-tvm"),
        date=datetime.date.today().isoformat(),
        times=times,
    )


def _mean(processes: Sequence[Sequence[float]]) -> float:
    """Of the processes' medians."""
    return round(statistics.mean(statistics.median(rounds) for rounds in processes), 3)
