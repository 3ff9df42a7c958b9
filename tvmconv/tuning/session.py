"""Tunes the layers of a workload one after the other, and writes each record when it is found."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tvmconv import hardware, host, toolchain
from tvmconv.errors import TuningError
from tvmconv.hardware import HardwarePack, Machine
from tvmconv.spec import ConvSpec
from tvmconv.tuning import log
from tvmconv.tuning.measure import Candidate, Measurer
from tvmconv.tuning.search import Budget, Outcome, Progress, search
from tvmconv.workloads import Layer

# Scheduling, scoring, compiling, checking and timing one candidate on a 3.7 GHz core, 2026-11.
SECONDS_PER_TRIAL = 0.5
# The last comparison of the finalists, a new process included; likewise.
_CONCLUDING_SECONDS = 5.0
# Of search that every layer gets, whatever is left.
_LEAST_SECONDS = 1.0


@dataclass(frozen=True)
class Plan:
    """What will be tuned, and for how long.

    Attributes:
        layers: distinct layers with something to compute, in the order they are tuned.
        machine, pack: what for.
        trials: most candidates per layer.
        seconds: for the whole session; None is no limit.
        directory: where records go.
        threads: of one call.
    """

    layers: tuple[Layer, ...]
    machine: Machine
    pack: HardwarePack
    trials: int
    seconds: float | None
    directory: Path
    threads: int = 1

    @property
    def estimated_seconds(self) -> float:
        """How long this will take at most, by experience."""
        by_trials = SECONDS_PER_TRIAL * self.trials * len(self.layers)
        return by_trials if self.seconds is None else min(self.seconds, by_trials)


@dataclass
class Session:
    """What came out so far; also when the session was interrupted."""

    outcomes: list[Outcome] = field(default_factory=list)
    interrupted: bool = False


def plan(
    layers: Sequence[Layer],
    machine_name: str,
    trials: int,
    minutes: float | None,
    directory: Path,
    threads: int = 1,
) -> Plan:
    """Check that this machine can measure for that one, and return the plan.

    Raises UnknownNameError, MissingToolError, or TuningError when the host lacks CPU features that the
    machine's kernels need, or the directory cannot be written.
    """
    toolchain.require(toolchain.check_ffi(), toolchain.check_tvm(), toolchain.check_xgboost())
    machine, pack = hardware.find_machine(machine_name)
    missing = sorted(set(machine.features) - host.cpu_features())
    if machine.architecture != host.architecture() or missing:
        lacks = (
            ", ".join(missing)
            if machine.architecture == host.architecture()
            else machine.architecture
        )
        raise TuningError(
            f"{machine.name} kernels cannot be measured on this machine, which lacks {lacks}. "
            f"Tune on a {machine.name}, or for this machine with --machine host."
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".tvmconv-write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise TuningError(
            f"{directory} cannot be written: {error.strerror}. Give another --output."
        ) from error
    distinct = {layer.spec.key: layer for layer in layers if not layer.spec.is_empty}
    seconds = None if minutes is None else minutes * 60
    return Plan(tuple(distinct.values()), machine, pack, trials, seconds, directory, threads)


def run(
    work: Plan,
    report: Callable[[Layer, Progress], None] = lambda _layer, _progress: None,
    finished: Callable[[Layer, Outcome], None] = lambda _layer, _outcome: None,
) -> Session:
    """Tune layer by layer; time that one layer leaves over goes to those behind it.

    ``report`` is called after every candidate, ``finished`` after every layer. Ctrl-C ends the session
    early: records written before stay, and `Session.interrupted` says so.
    """
    from tvmconv.tuning.model import CostModel  # imports TVM: a second

    session = Session()
    end = float("inf") if work.seconds is None else time.monotonic() + work.seconds
    model = CostModel(work.machine, work.pack)
    try:
        with Measurer(work.machine, work.threads) as measurer:
            for number, layer in enumerate(work.layers):
                share = (end - time.monotonic()) / (len(work.layers) - number)
                deadline = time.monotonic() + max(share - _CONCLUDING_SECONDS, _LEAST_SECONDS)
                outcome = search(
                    layer.spec,
                    work.machine,
                    work.pack,
                    measurer,
                    model,
                    Budget(work.trials, deadline),
                    functools.partial(report, layer),
                    _known(layer.spec, work),
                )
                if outcome.record is not None:
                    log.write(work.directory, [outcome.record])
                elif outcome.default_is_best:
                    log.remove(work.directory, work.machine.name, layer.spec.key)
                session.outcomes.append(outcome)
                finished(layer, outcome)
    except KeyboardInterrupt:
        session.interrupted = True
    return session


def _known(spec: ConvSpec, work: Plan) -> list[Candidate]:
    """The decisions of an older record, where they still apply: worth a trial each."""
    entry = log.find(spec, work.machine.name, [work.directory, *log.default_directories()])
    if entry is None:
        return []
    try:
        schedule = hardware.find_schedule(entry.record.schedule, work.pack)
        hardware.check_decisions(schedule, spec, work.machine, entry.record.decisions)
    except (ValueError, KeyError):
        return []  # a stale record is what tuning again is for
    return [Candidate(schedule.name, entry.record.decisions)]
