"""This machine as a place that measures: its CPU, or its GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvmconv.errors import TuningError, TvmconvError
from tvmconv.hardware import Machine, host
from tvmconv.measuring.places.compiled import CompilingMeasurer, seconds_per_trial
from tvmconv.measuring.process import device
from tvmconv.measuring.process.runner import Conditions, Runner
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import record
from tvmconv.records.log import WORTHWHILE

_OTHER_WAYS = (
    "Give --export candidates.tar, run `tvmconv measure candidates.tar` on a machine with the GPU, and give "
    "--import candidates.results here; or run `tvmconv board` there, and give --rpc-tracker."
)


@dataclass(frozen=True)
class Here:
    """This machine; a `place.Place`. A candidate gets ``timeout_seconds`` to compile, and as many to run."""

    timeout_seconds: float = 30.0
    name = record.HERE
    board = None
    worthwhile = WORTHWHILE

    def journal_name(self, machine: Machine) -> str:
        """What measures here; a list of what is tuned needs no GPU."""
        try:
            return device.here(machine).name
        except TvmconvError:
            return "no-gpu"

    def require(self, machine: Machine) -> None:
        """Raise TuningError where this host is not such a machine, nor has such a GPU."""
        if machine.gpu is None:
            _require_cpu(machine)
            return
        try:
            device.find(machine)
        except TvmconvError as error:
            raise TuningError(f"{error}. {_OTHER_WAYS}") from error

    def seconds_per_trial(self, machine: Machine, _specs: Sequence[ConvSpec]) -> float:
        """What one candidate takes, by experience."""
        return seconds_per_trial(machine)

    def open(self, machine: Machine, conditions: Conditions | None = None) -> CompilingMeasurer:
        """Return what compiles, checks and times here."""
        given, limit = conditions or Conditions(), self.timeout_seconds
        return CompilingMeasurer(
            machine,
            given.threads,
            limit,
            lambda libraries: Runner(machine, libraries, given, limit),
        )


def _require_cpu(machine: Machine) -> None:
    missing = sorted(set(machine.features) - host.cpu_features())
    foreign = machine.architecture != host.architecture()
    if foreign or missing:
        lacks = machine.architecture if foreign else ", ".join(missing)
        raise TuningError(
            f"{machine.name} kernels cannot be measured on this machine, which lacks {lacks}. "
            f"Tune on a {machine.name}, or for this machine with --machine host; or give --export FILE, and "
            f"measure that file on a {machine.name}; or predict times with --simulate."
        )
