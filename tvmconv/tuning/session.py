"""Tunes the layers of a plan: shares the time among them, and writes down at once all that happens."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tvmconv import writing
from tvmconv.errors import TuningError
from tvmconv.measuring.places.place import Measurer
from tvmconv.measuring.process.candidate import Candidate, Measurement
from tvmconv.tuning import journal as journals
from tvmconv.tuning import opening
from tvmconv.tuning.conclude import Outcome, conclude
from tvmconv.tuning.journal import Conclusion, Spent
from tvmconv.tuning.plan import Plan
from tvmconv.tuning.progress import LayerState, Session, Watcher
from tvmconv.tuning.search import BATCH

if TYPE_CHECKING:
    from tvmconv.tuning.model import CostModel


_MOST_OF_LOOKING = 0.3  # of the budget


def run(work: Plan, watcher: Watcher | None = None) -> Session:
    """Tune all layers of a plan; Ctrl-C ends the session early, and `Session.interrupted` says so.

    Every trial is in the journal when the next one begins, every record in the log when its layer is
    finished: whatever ends the session, the same command goes on where it stopped. Raises TuningError
    when another session is at work on the same logs, or they cannot be written; RecordError when a log
    is damaged.
    """
    session = Session(work)
    with alone(work), work.place.open(work.machine, work.conditions) as it:
        try:
            _Run(work, session, it, watcher).all_layers()
        except KeyboardInterrupt:
            session.interrupted = True
    return session


@contextlib.contextmanager
def alone(work: Plan) -> Iterator[None]:
    """Keep other tuners from this machine's logs: two at a time would spoil each other's times."""
    folder = journals.scratch(work.directory, work.machine.name)
    holder = folder / "holder"
    try:
        lock = writing.acquire(folder / "lock", "tuning", seconds=0.0)
    except TimeoutError as error:
        raise TuningError(
            f"another tuner ({_content(holder)}) is at work on {work.directory / work.machine.name}. "
            "Wait until it has ended, or give another --output."
        ) from error
    except OSError as error:
        raise journals.cannot_write(folder, error) from error
    try:
        try:
            holder.write_text(f"process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M')}\n")
        except OSError as error:
            raise journals.cannot_write(folder, error) from error
        yield
    finally:
        lock.release()


def _content(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text().strip()
    return "unknown"


class _Run:
    """One session at work."""

    def __init__(
        self, work: Plan, session: Session, measurer: Measurer, watcher: Watcher | None
    ) -> None:
        self.work, self.session, self.measurer, self.watcher = work, session, measurer, watcher
        self.journal = work.journal
        self.begin = time.monotonic()
        self.before = 0.0  # seconds that this session had before it was cut off

    def all_layers(self) -> None:
        """Start, search while there is time and hope, end every layer's search."""
        self.measurer.start()
        if self.work.seconds is not None:
            if not self.work.again:
                self.before = self.journal.spent(self.work.name)
            self.session.deadline = self.begin + self.work.seconds - self.before
        if self.work.again:
            for layer in self.work.layers:
                self.journal.forget(layer.spec.key)
        model = opening.model(self.work)
        roof = self.measurer.roof([layer.spec for layer in self.work.layers])
        self.session.peak = roof.flops_per_second
        for layer in self.work.layers:
            state = opening.state(self.work, layer, model, peak=self.session.peak)
            spec = layer.spec
            memory = spec.bytes / roof.bandwidth(spec.bytes)
            arithmetic = opening.least_seconds(
                self.work, spec, state.search.default, roof.flops_per_second
            )
            state.floor = max(arithmetic, memory)
            state.first_batch_seconds = BATCH * self.work.seconds_per_trial
            self.session.states.append(state)
        if self.watcher:
            self.watcher.started(self.session)
        for state in self.session.states:
            self._skip_if_done(state)
        self._look_at_defaults()
        while (chosen := self._next()) is not None:
            if self._goes_on(chosen):
                self._batch(chosen, model)
            else:
                self._conclude(chosen)
                model.save(self.journal.model_file())
        self._spend(finished=True)

    def _look_at_defaults(self) -> None:
        """With a budget, time every layer's default first: what it takes says what its search can save."""
        if self.work.seconds is None:
            return
        now = time.monotonic()
        latest = now + _MOST_OF_LOOKING * (self.session.deadline - now)
        open_ = [s for s in self.session.states if s.outcome is None and not s.search.trials]
        for state in sorted(open_, key=lambda each: each.priority, reverse=True):
            if time.monotonic() > latest:
                return
            self._measure(state, [state.search.default])

    def _skip_if_done(self, state: LayerState) -> None:
        """Leave alone what an earlier session has finished, unless more is asked for now."""
        conclusion = state.memory.conclusion
        if conclusion is None or not self._covers(conclusion):
            return
        state.outcome = opening.earlier(self.work, state)
        if state.outcome is not None:
            self._tell_finished(state)

    def _covers(self, conclusion: Conclusion) -> bool:
        """Whether a search went as far as this session would."""
        if self.work.seconds is not None:
            return self.before > 0 and conclusion.session == self.work.name
        asked = self.work.trials
        return asked is not None and conclusion.asked is not None and conclusion.asked >= asked

    def _next(self) -> LayerState | None:
        """The layer whose search is expected to save most; without a budget, the first."""
        open_ = [state for state in self.session.states if state.outcome is None]
        if self.work.seconds is None or not open_:
            return open_[0] if open_ else None
        return max(open_, key=lambda state: state.priority)

    def _goes_on(self, state: LayerState) -> bool:
        """Whether this layer gets another batch: trials, hope, and time for it and all conclusions."""
        trials = len(state.search.trials)
        if self.work.trials is not None and trials >= self.work.trials:
            return False
        if state.search.promise() == 0.0:
            return False
        open_ = [s for s in self.session.states if s.outcome is None]
        begun = [s for s in open_ if len(s.search.trials) > 1 or s is state]
        batch = (
            state.seconds / state.batches if state.batches else BATCH * self.work.seconds_per_trial
        )
        reserve = len(begun) * self.session.concluding_seconds
        return time.monotonic() + reserve + batch / 2 < self.session.deadline

    def _batch(self, state: LayerState, model: CostModel) -> None:
        start = time.monotonic()
        search = state.search
        if state.batches == 0:
            search.suggest(opening.suggested(self.work, self.session, state.layer.spec))
        count = BATCH
        if self.work.trials is not None:
            count = min(count, self.work.trials - len(search.trials))

        candidates = search.propose(count)
        if search.default_trial is None:  # the yardstick of all others
            self._measure(state, candidates[:1])
            candidates = candidates[1:]
        self._measure(state, candidates)
        search.end_batch()
        model.train()
        state.batches += 1
        state.seconds += time.monotonic() - start
        self._spend(finished=False)

    def _measure(self, state: LayerState, candidates: list[Candidate]) -> None:
        """Measure candidates of a layer, each written down at once."""
        search, key = state.search, state.layer.spec.key

        def done(measurement: Measurement) -> None:
            self.journal.add(key, [measurement])
            search.note(measurement)
            if self.watcher:
                self.watcher.measured(self.session, state)

        best = search.best.seconds if search.best else None
        self.measurer.measure(
            search.spec, candidates, best or float("inf"), done, search.default_trial
        )

    def _conclude(self, state: LayerState) -> None:
        start = time.monotonic()
        if not state.search.trials:
            state.outcome = Outcome(state.layer.spec, None, reason="no time was left for it")
            self._tell_finished(state)
            return
        work = self.work
        ended = conclude(state.search, self.measurer, work.place, work.machine, work.conditions)
        opening.keep(work, state, ended)
        self.session.concluded(time.monotonic() - start)
        self._tell_finished(state)
        self._spend(finished=False)

    def _tell_finished(self, state: LayerState) -> None:
        if self.watcher:
            self.watcher.finished(self.session, state)

    def _spend(self, finished: bool) -> None:
        if self.work.seconds is not None:
            seconds = self.before + time.monotonic() - self.begin
            self.journal.spend(Spent(self.work.name, seconds, finished))
