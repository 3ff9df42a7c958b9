"""How far a tuning session is: what its watcher is shown, and what decides which layer comes next."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Protocol

from tvmconv.problem.workloads import Layer
from tvmconv.tuning.conclude import Outcome
from tvmconv.tuning.journal import Memory
from tvmconv.tuning.plan import CONCLUDING_SECONDS, Plan
from tvmconv.tuning.search import BATCH, LayerSearch


@dataclass
class LayerState:
    """Where one layer of a session stands; handed to the watcher."""

    layer: Layer
    search: LayerSearch
    memory: Memory
    outcome: Outcome | None = None
    floor: float = 0.0  # seconds of one call if the roof were reached
    seconds: float = 0.0  # of this session's search
    batches: int = 0
    first_batch_seconds: float = 1.0  # what the first batch takes, by experience

    @property
    def priority(self) -> tuple[int, float]:
        """Which layer comes next; the largest does.

        First those whose search is over, which is soon done; then by the seconds of the network that a
        second of search is expected to save. A layer of which nothing is measured takes no less than the
        roof allows.
        """
        best, promise, seconds = self.search.best, self.search.promise(), self.floor
        if promise == 0.0 or (self.search.trials and best is None):
            return (1, 0.0)
        if best is not None and best.seconds:
            seconds = best.seconds
            # A roof that was measured beside a busy neighbour is too low: what seems to be at it comes
            # late, and not never.
            promise = min(promise, max(self._room(seconds), promise / 10))
        gain = self.layer.count * seconds * promise
        batch = self.seconds / self.batches if self.batches else self.first_batch_seconds
        return (0, gain / max(batch, 1e-3))

    def _room(self, seconds: float) -> float:
        """The most that can be gained over ``seconds``, as a fraction: what is between them and the roof.

        No limit to a 3x3 convolution of stride 1: Winograd's algorithm multiplies less than the roof counts.
        """
        spec = self.layer.spec
        winograd = (
            spec.op == "conv2d" and spec.filter_shape[:2] == (3, 3) and spec.strides == (1, 1)
        )
        if winograd or self.floor <= 0.0:
            return math.inf
        return math.log(max(seconds / self.floor, 1.0))


class Watcher(Protocol):
    """Whoever looks on."""

    def started(self, session: Session) -> None:
        """Called before the first trial."""

    def measured(self, session: Session, state: LayerState) -> None:
        """Called after every trial, which is the last of ``state.search.trials``."""

    def finished(self, session: Session, state: LayerState) -> None:
        """Called after every layer; ``state.outcome`` is what came out."""


@dataclass
class Session:
    """What came out so far; also when the session was interrupted.

    Attributes:
        states: one per layer of the plan.
        peak: the multiply-add roof, operations a second, measured at the start.
        interrupted: whether Ctrl-C ended it.
        deadline: of `time.monotonic`; infinite without a budget of time.
    """

    plan: Plan
    states: list[LayerState] = field(default_factory=list)
    peak: float = 0.0
    interrupted: bool = False
    deadline: float = float("inf")
    _concluding: list[float] = field(default_factory=lambda: [CONCLUDING_SECONDS])

    @property
    def outcomes(self) -> list[Outcome]:
        """Those of the layers that are finished."""
        return [state.outcome for state in self.states if state.outcome is not None]

    @property
    def seconds_left(self) -> float:
        """Until the budget is spent, or by estimate until all trials are made."""
        open_ = [state for state in self.states if state.outcome is None]
        by_trials = float("inf")
        if self.plan.trials is not None:
            trials = sum(max(0, self.plan.trials - len(s.search.trials)) for s in open_)
            by_trials = trials * self._seconds_per_trial() + len(open_) * self.concluding_seconds
        return max(0.0, min(by_trials, self.deadline - time.monotonic()))

    @property
    def concluding_seconds(self) -> float:
        """What the end of a layer's search has cost lately."""
        return sum(self._concluding[-5:]) / len(self._concluding[-5:])

    def concluded(self, seconds: float) -> None:
        """Note what the end of a search has cost."""
        self._concluding.append(seconds)

    def _seconds_per_trial(self) -> float:
        batches = sum(state.batches for state in self.states)
        if not batches:
            return self.plan.seconds_per_trial
        return sum(state.seconds for state in self.states) / (batches * BATCH)
