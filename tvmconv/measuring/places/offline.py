"""A machine out of reach as a place that measures: batches of candidates go there, results come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from tvmconv.building import cross
from tvmconv.errors import TuningError
from tvmconv.hardware import Machine
from tvmconv.measuring.places.compiled import seconds_per_trial
from tvmconv.measuring.process.runner import Conditions
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import record
from tvmconv.records.log import WORTHWHILE


@dataclass(frozen=True)
class Offline:
    """Wherever somebody runs `tvmconv measure`; a `place.Place`."""

    name = record.OFFLINE
    board = None
    worthwhile = WORTHWHILE

    def journal_name(self, _machine: Machine) -> str:
        """One for all: `tuning.offline` lets no two processors into it."""
        return self.name

    def require(self, machine: Machine) -> None:
        """Raise MissingToolError where nothing can be built for the machine."""
        cross.require(machine.architecture, machine.name)

    def seconds_per_trial(self, machine: Machine, _specs: Sequence[ConvSpec]) -> float:
        """As if it were measured here."""
        return seconds_per_trial(machine)

    def open(self, machine: Machine, _conditions: Conditions | None = None) -> NoReturn:
        """Raise TuningError: that is not from here."""
        raise TuningError(
            f"candidates for {machine.name} are measured elsewhere: give --export FILE, and run `tvmconv "
            "measure FILE` there"
        )
