"""Ends a layer's search: the finalists against the default, in turn, in two processes."""

from __future__ import annotations

import datetime
import importlib.metadata
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tvmconv import host
from tvmconv.spec import ConvSpec
from tvmconv.tuning.candidate import Candidate, Measurement
from tvmconv.tuning.log import WORTHWHILE, Record
from tvmconv.tuning.measure import Measurer
from tvmconv.tuning.search import LayerSearch

_FINALISTS = 8
_ROUNDS = 11
_PROCESSES = 2


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
    """

    spec: ConvSpec
    record: Record | None
    trials: Sequence[Measurement] = ()
    gain: float | None = None
    reason: str = ""
    earlier: bool = False

    @property
    def default_is_best(self) -> bool:
        """Whether the default was compared and not beaten: an older record has no claim any more."""
        return self.record is None and self.gain is not None

    @property
    def failures(self) -> int:
        """Candidates that could not be compiled, crashed, hung or computed wrong values."""
        return sum(trial.seconds is None for trial in self.trials)


def conclude(search: LayerSearch, measurer: Measurer) -> Outcome:
    """Time the finalists and the default, compiled as they would be shipped, and keep a winner.

    Eleven rounds in each of two processes. A finalist's gain is the smaller of its two medians' ratios
    to the default's; a record is made of the largest gain, if that is `WORTHWHILE`.
    """
    spec, default = search.spec, search.default
    if search.default_error is not None:
        reason = f"the default itself fails, please report: {search.default_error}"
        return Outcome(spec, None, search.trials, reason=reason)
    mine = default.identity
    finalists = [t.candidate for t in search.ranked() if t.candidate.identity != mine]
    if not finalists:
        return Outcome(spec, None, search.trials, reason=_nothing_measured(search))
    compared = [default, *finalists[:_FINALISTS]]
    processes = measurer.interleave(spec, compared, _ROUNDS, _PROCESSES)
    if isinstance(processes, str):
        reason = f"the finalists could not be timed: {processes}"
        return Outcome(spec, None, search.trials, reason=reason)
    medians = [[statistics.median(rounds) for rounds in times] for times in processes]
    gains = [
        min(process[0] / process[finalist] for process in medians)
        for finalist in range(1, len(compared))
    ]
    gain = max(gains)
    if gain < WORTHWHILE:
        reason = f"nothing beats the default (best {gain:.3f} x)"
        return Outcome(spec, None, search.trials, gain, reason)
    winner = 1 + gains.index(gain)
    before, after = ([process[at] for process in medians] for at in (0, winner))
    record = _record(search, measurer, compared[winner], before, after)
    return Outcome(spec, record, search.trials, gain)


def _nothing_measured(search: LayerSearch) -> str:
    errors = list(dict.fromkeys(trial.error for trial in search.failures))
    if errors:
        return f"no candidate but the default could be measured: {errors[0]}"
    return "no time was left to measure anything but the default"


def _record(
    search: LayerSearch,
    measurer: Measurer,
    winner: Candidate,
    before: Sequence[float],
    after: Sequence[float],
) -> Record:
    conditions = measurer.conditions
    return Record(
        key=search.spec.key,
        schedule=winner.schedule,
        decisions=dict(winner.decisions),
        microseconds=round(statistics.mean(after) * 1e6, 3),
        default_microseconds=round(statistics.mean(before) * 1e6, 3),
        machine=measurer.machine.name,
        cpu=host.cpu_name(),
        threads=conditions.threads,
        tvm=importlib.metadata.version("apache-tvm"),
        date=datetime.date.today().isoformat(),
        trials=len(search.trials),
        measured=f"here, {conditions.cache} cache, median of {_ROUNDS} rounds interleaved with the "
        f"default, mean of {_PROCESSES} processes, the gain is the smaller of them",
    )
