"""A place that measures, as everybody else sees it: what the tuner asks for, whichever place it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from tvmconv.hardware import Machine
from tvmconv.measuring.process.candidate import Candidate, Measurement
from tvmconv.measuring.process.device import Processor
from tvmconv.measuring.process.runner import Conditions
from tvmconv.measuring.roof.probe import Roof
from tvmconv.problem.spec import ConvSpec


class Measurer(Protocol):
    """A place at work; use it in a ``with`` statement."""

    def __enter__(self) -> Measurer: ...

    def __exit__(self, *details: object) -> None: ...

    def start(self) -> None:
        """Let its processes start now, in the background."""

    @property
    def processor(self) -> Processor:
        """What measures, as a record names it."""

    def roof(self, specs: Sequence[ConvSpec] = ()) -> Roof:
        """What the machine can do at most, in these specs' dtypes."""

    def measure(
        self,
        spec: ConvSpec,
        candidates: Sequence[Candidate],
        best: float = math.inf,
        done: Callable[[Measurement], None] = lambda _measurement: None,
        yardstick: Measurement | None = None,
    ) -> list[Measurement]:
        """Check and time all; ``done`` is called after each. Never raises for a bad candidate.

        Those far slower than ``best`` (seconds) may be timed roughly. ``yardstick`` is a good measurement
        of the same layer, the default's: its kernel is timed beside each candidate to tell how fast the
        machine is just then.
        """

    def interleave(
        self, spec: ConvSpec, candidates: Sequence[Candidate], rounds: int, again: int = 1
    ) -> list[list[list[float]]] | str:
        """Time good candidates against each other, in turn, compiled as they would be shipped.

        Returns for each of ``again`` processes the seconds by candidate and round, or the error as text
        when a candidate fails.
        """

    def close(self) -> None:
        """End all processes, however busy, and remove what they wrote."""


class Place(Protocol):
    """Where candidates are measured."""

    @property
    def name(self) -> str:
        """As a record says it: one of `record.PLACES`."""

    @property
    def board(self) -> str | None:
        """The key of boards."""

    @property
    def worthwhile(self) -> float:
        """The least gain over the default that makes a record."""

    def journal_name(self, machine: Machine) -> str:
        """Under which trials are kept: those of two places do not compare."""

    def require(self, machine: Machine) -> None:
        """Raise TuningError or MissingToolError where it cannot measure, or be built for, a machine."""

    def seconds_per_trial(self, machine: Machine, specs: Sequence[ConvSpec]) -> float:
        """What a candidate of these layers takes on average, by experience."""

    def open(self, machine: Machine, conditions: Conditions | None = None) -> Measurer:
        """Return what measures there; raises TuningError where that is not now and not from here."""
