"""What every session begins with and every layer ends with: the journals read, a result written down."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from tvmconv import hardware
from tvmconv.measuring.process.candidate import Candidate, Measurement
from tvmconv.measuring.roof import bounds
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.workloads import Layer
from tvmconv.records import log
from tvmconv.records.record import SIMULATED, Record
from tvmconv.tuning import features
from tvmconv.tuning import journal as journals
from tvmconv.tuning.conclude import Outcome
from tvmconv.tuning.journal import Conclusion
from tvmconv.tuning.plan import Plan
from tvmconv.tuning.priors import suggestions
from tvmconv.tuning.progress import LayerState, Session
from tvmconv.tuning.search import LayerSearch

if TYPE_CHECKING:
    from tvmconv.tuning.model import CostModel


def model(work: Plan) -> CostModel:
    """Return the cost model, trained by earlier sessions, with the trials of all other layers."""
    from tvmconv.tuning.model import CostModel  # imports MetaSchedule and XGBoost: a second

    made = CostModel()
    made.load(work.journal.model_file())
    mine = {layer.spec.key for layer in work.layers}
    for key in work.journal.known():
        spec = None if key in mine else journals.spec_of(key)
        if spec is not None:
            _teach(work, made, spec)
    return made


def _teach(work: Plan, model: CostModel, spec: ConvSpec) -> None:
    """Give the model the trials of a layer that is not of this session."""
    trials = work.journal.read(spec.key).trials
    with contextlib.suppress(ValueError, KeyError):  # a schedule that is gone
        candidates = [trial.candidate for trial in trials]
        rows = features.rows(spec, work.machine, work.pack, candidates)
        model.add(spec.key, rows, [trial.seconds for trial in trials])


def state(
    work: Plan, layer: Layer, model: CostModel, batch: int | None = None, peak: float | None = None
) -> LayerState:
    """Return a layer's search as the journal has it; ``batch`` is as in `LayerSearch.resume`.

    With ``peak`` without the trials whose time no machine of that peak could have: earlier versions
    believed them.
    """
    memory = work.journal.read(layer.spec.key)
    if peak is not None:
        trials = [each for each in memory.trials if _is_possible(work, layer.spec, each, peak)]
        memory = dataclasses.replace(memory, trials=tuple(trials))
    search = LayerSearch(layer.spec, work.machine, work.pack, model, work.patience)
    search.resume(memory.trials, batch)
    return LayerState(layer, search, memory)


def least_seconds(work: Plan, spec: ConvSpec, candidate: Candidate, peak: float) -> float:
    """What a candidate takes at least, by its multiply-adds alone; 0 where its schedule is gone."""
    try:
        schedule = hardware.find_schedule(candidate.schedule, work.pack)
        macs = schedule.macs(spec, candidate.decisions)
    except (ValueError, KeyError):
        return 0.0
    return bounds.least_seconds(macs, spec.dtype, work.machine, peak)


def _is_possible(work: Plan, spec: ConvSpec, trial: Measurement, peak: float) -> bool:
    least = least_seconds(work, spec, trial.candidate, peak)
    return trial.seconds is None or bounds.is_possible(trial.seconds, least, work.machine)


def suggested(work: Plan, session: Session, spec: ConvSpec) -> list[Candidate]:
    """Winners of the nearest layers: of this session, and on record."""
    found = [
        (state.layer.spec, state.search.best.candidate)
        for state in session.states
        if state.search.best is not None and len(state.search.trials) > 1  # else its default
    ]
    directories = list(dict.fromkeys([work.directory, *log.default_directories()]))
    return suggestions(spec, work.machine, work.pack, directories, found)


def earlier(work: Plan, state: LayerState) -> Outcome | None:
    """Return what an earlier session came to; None where somebody has taken the record away since."""
    spec, conclusion = state.layer.spec, state.memory.conclusion
    if conclusion is None:
        return None
    record = _own(work, spec)
    if record is not None and record.simulated != (work.place.name == SIMULATED):
        record = None  # not that session's: measured where it simulated, or the other way round
    if record is not None and record.is_default:
        record = None
    if record is None and not conclusion.reason:
        return None
    reason = "" if record else conclusion.reason
    return Outcome(spec, record, state.memory.trials, conclusion.gain, reason, earlier=True)


def _own(work: Plan, spec: ConvSpec) -> Record | None:
    """The record of this very key in the directory that this plan writes to."""
    entry = log.find(spec, work.machine.name, [work.directory], lambda r: r.key == spec.key)
    return entry.record if entry else None


def keep(work: Plan, state: LayerState, outcome: Outcome) -> None:
    """Write down how a layer's search ended: its record, or that an older one has no claim any more."""
    spec, trials = state.layer.spec, state.search.trials
    there = _own(work, spec)
    if work.place.name == SIMULATED and there is not None and not there.simulated:
        reason = f"a measured record of {there.date} stays, which no simulation replaces"
        outcome = dataclasses.replace(outcome, record=None, reason=reason)
    elif outcome.record is not None:
        log.write(work.directory, [outcome.record])
    elif outcome.default_is_best:
        log.remove(work.directory, work.machine.name, spec.key)
        # One that is shipped, or of another epilogue, would be taken in the default's place.
        readable = list(dict.fromkeys([work.directory, *log.default_directories()]))
        if outcome.standing and log.find(spec, work.machine.name, readable) is not None:
            log.write(work.directory, [outcome.standing])
    asked = work.trials
    if asked is not None and len(trials) < asked and state.search.promise() > 0.0:
        asked = None  # it was time that ended this search
    end = Conclusion(len(trials), asked, outcome.gain, outcome.reason, work.name)
    work.journal.conclude(spec.key, end)
    state.outcome = outcome
