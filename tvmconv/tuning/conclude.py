"""Ends a layer's search: the finalists against the default, in turn, in two processes."""

from __future__ import annotations

import datetime
import importlib.metadata
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tvmconv.measuring.places.here import Measurer
from tvmconv.measuring.places.simulated import SIMULATED, Simulator
from tvmconv.measuring.process.candidate import Candidate, Measurement
from tvmconv.measuring.process.runner import Conditions
from tvmconv.problem.spec import ConvSpec
from tvmconv.records.log import WORTHWHILE, Record
from tvmconv.tuning.search import LayerSearch

FINALISTS = 8
# Predictions do not scatter, but tiles that were measured to be best are predicted to be up to 8 % from it,
# one of twenty 13 % (docs/arm.md, "Predicted times").
WORTHWHILE_SIMULATED = 1.10
ROUNDS = 11
PROCESSES = 2


@dataclass(frozen=True)
class Place:
    """Where finalists were timed, as a record says it.

    Attributes:
        machine: what the kernels were compiled for.
        cpu: the CPU's own name.
        conditions: threads and caches.
        how: the first words of the record's ``measured``.
    """

    machine: str
    cpu: str
    conditions: Conditions
    how: str

    @property
    def worthwhile(self) -> float:
        """The least gain that makes a record."""
        return WORTHWHILE_SIMULATED if self.how == SIMULATED else WORTHWHILE

    @property
    def measured(self) -> str:
        """What a record says of its times."""
        if self.how == SIMULATED:
            return (
                f"{SIMULATED}: cycles of llvm-mca for the blocks that ran, and the cache lines that moved, "
                f"at the usual clock; {self.conditions.cache} cache; no clock ran"
            )
        return (
            f"{self.how}, {self.conditions.cache} cache, median of {ROUNDS} rounds interleaved with the "
            f"default, mean of {PROCESSES} processes, the gain is the smaller of them"
        )


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
    def failures(self) -> int:
        """Candidates that could not be compiled, crashed, hung or computed wrong values."""
        return sum(trial.seconds is None for trial in self.trials)


def conclude(search: LayerSearch, measurer: Measurer | Simulator) -> Outcome:
    """Time the finalists and the default, compiled as they would be shipped, and keep a winner.

    Eleven rounds in each of two processes.
    """
    compared = [search.default, *(trial.candidate for trial in finalists(search))]
    processes: list[list[list[float]]] | str = []
    if search.default_error is None and len(compared) > 1:
        processes = measurer.interleave(search.spec, compared, ROUNDS, PROCESSES)
    place = Place(measurer.machine.name, measurer.cpu, measurer.conditions, measurer.how)
    return decide(search, compared, processes, place)


def finalists(search: LayerSearch) -> list[Measurement]:
    """The fastest but the default, fastest first."""
    mine = search.default.identity
    return [t for t in search.ranked() if t.candidate.identity != mine][:FINALISTS]


def decide(
    search: LayerSearch,
    compared: Sequence[Candidate],
    processes: Sequence[Sequence[Sequence[float]]] | str,
    place: Place,
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
    before = [process[0] for process in medians]
    if gain < place.worthwhile:
        reason = f"nothing beats the default (best {gain:.3f} x)"
        standing = _record(search, place, search.default, before, before)
        return Outcome(spec, None, search.trials, gain, reason, standing=standing)
    winner = 1 + gains.index(gain)
    record = _record(search, place, compared[winner], before, [p[winner] for p in medians])
    return Outcome(spec, record, search.trials, gain)


def _nothing_measured(search: LayerSearch) -> str:
    errors = list(dict.fromkeys(trial.error for trial in search.failures))
    if errors:
        return f"no candidate but the default could be measured: {errors[0]}"
    return "no time was left to measure anything but the default"


def _record(
    search: LayerSearch,
    place: Place,
    winner: Candidate,
    before: Sequence[float],
    after: Sequence[float],
) -> Record:
    conditions = place.conditions
    return Record(
        key=search.spec.key,
        schedule=winner.schedule,
        decisions=dict(winner.decisions),
        microseconds=round(statistics.mean(after) * 1e6, 3),
        default_microseconds=round(statistics.mean(before) * 1e6, 3),
        machine=place.machine,
        cpu=place.cpu,
        threads=conditions.threads,
        tvm=importlib.metadata.version("apache-tvm"),
        date=datetime.date.today().isoformat(),
        trials=len(search.trials),
        measured=place.measured,
    )
