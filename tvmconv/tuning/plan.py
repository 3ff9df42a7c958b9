"""What a tuning session is to do, checked before it starts."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tvmconv import hardware
from tvmconv.building import toolchain
from tvmconv.building.cuda import tools as cuda_tools
from tvmconv.errors import TuningError
from tvmconv.hardware import HardwarePack, Machine
from tvmconv.measuring.places.here import Here
from tvmconv.measuring.places.place import Place
from tvmconv.measuring.process.runner import Conditions
from tvmconv.problem.workloads import Layer
from tvmconv.records import choice
from tvmconv.tuning import journal as journals
from tvmconv.tuning.journal import Journal
from tvmconv.tuning.search import PATIENCE

# A layer's last comparison, and starting; VM, 2 cores, 2026-11.
CONCLUDING_SECONDS = 2.0
STARTING_SECONDS = 4.0


@dataclass(frozen=True)
class Plan:
    """What will be tuned, and for how long.

    Attributes:
        layers: distinct layers with something to compute, in the order of the workload.
        machine, pack: what for.
        trials: most candidates per layer, those of earlier sessions included; None is no limit.
        seconds: for the whole session; None is no limit.
        directory: where records go.
        conditions: threads and cache state of a measured call.
        again: forget earlier trials of these layers.
        patience: batches without a gain that end the search of a layer.
        place: where candidates are measured.
    """

    layers: tuple[Layer, ...]
    machine: Machine
    pack: HardwarePack
    trials: int | None
    seconds: float | None
    directory: Path
    conditions: Conditions = field(default_factory=Conditions)
    again: bool = False
    patience: int = PATIENCE
    place: Place = field(default_factory=Here)

    @property
    def estimated_seconds(self) -> float:
        """How long this will take at most, by experience."""
        by_trials = float("inf")
        if self.trials is not None:
            each = self.seconds_per_trial * self.trials + CONCLUDING_SECONDS
            by_trials = STARTING_SECONDS + each * len(self.layers)
        return min(by_trials, float("inf") if self.seconds is None else self.seconds)

    @property
    def seconds_per_trial(self) -> float:
        """What one candidate takes, by experience."""
        return self.place.seconds_per_trial(self.machine, [each.spec for each in self.layers])

    @property
    def journal(self) -> Journal:
        """Where the trials of these conditions stand."""
        return Journal(
            self.directory,
            self.machine.name,
            conditions_name(self.place.journal_name(self.machine), self.conditions),
        )

    @property
    def name(self) -> str:
        """The same for the same command."""
        keys = tuple(layer.spec.key for layer in self.layers)
        return journals.session_name(keys, self.trials, self.seconds, self.conditions)


def plan(
    layers: Sequence[Layer],
    machine_name: str,
    trials: int | None,
    minutes: float | None,
    directory: Path,
    conditions: Conditions | None = None,
    again: bool = False,
    patience: int = PATIENCE,
    place: Place | None = None,
) -> Plan:
    """Check that this machine can measure, or build, for that one, and return the plan.

    Raises UnknownNameError, MissingToolError, or TuningError when the host lacks CPU features that the
    machine's kernels need, or the directory cannot be written; ValueError for arrays that are too large.
    """
    toolchain.require_compiler()
    toolchain.require(toolchain.check_xgboost())
    machine, pack = hardware.find_machine(machine_name)
    conditions, place = conditions or Conditions(), place or Here()
    if machine.gpu is not None and conditions.threads != 1:
        raise TuningError(f"--threads is for CPUs, and {machine.name} is a GPU: leave it out")
    place.require(machine)
    cuda_tools.require(machine)
    for layer in layers:
        hardware.require_indexable(layer.spec)
    _require_writable(directory)
    seconds = None if minutes is None else minutes * 60
    return Plan(
        distinct(layers, machine, pack),
        machine,
        pack,
        trials,
        seconds,
        directory,
        conditions,
        again,
        patience,
        place,
    )


def distinct(layers: Iterable[Layer], machine: Machine, pack: HardwarePack) -> tuple[Layer, ...]:
    """Layers to search: each spec once, without what needs none, as the machine's schedules see them."""
    seen = [
        replace(layer, spec=choice.permitted(layer.spec, machine, pack))
        for layer in layers
        if not layer.spec.is_empty
    ]
    return tuple({layer.spec.key: layer for layer in seen}.values())


def _require_writable(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".tvmconv-write-test"
        probe.write_text("x" * 4096)  # a full disk still makes empty files
        probe.unlink()
    except OSError as error:
        raise TuningError(
            f"{directory} cannot be written: {error.strerror}. Give another --output."
        ) from error


def all_journals(directory: Path, machine: Machine, conditions: Conditions) -> list[Journal]:
    """Everybody's trials under some conditions: those made here first, then on boards and offline."""
    own = conditions_name(Here().journal_name(machine), conditions)
    here = Journal(directory, machine.name, own)
    pattern = f"*{conditions_name('', conditions)}"
    places = sorted(each.name for each in here.folder.parent.glob(pattern) if each.is_dir())
    return [
        here,
        *(Journal(directory, machine.name, place) for place in places if place != here.folder.name),
    ]


def conditions_name(place: str, conditions: Conditions) -> str:
    """A folder's name for what times depend on besides the kernel: trials of others do not compare.

    ``place`` is a `Place.journal_name`.
    """
    name = re.sub(r"[^a-z0-9]+", "-", place.lower()).strip("-")
    tvm = importlib.metadata.version("apache-tvm")
    return f"{name}_{conditions.threads}-threads_{conditions.cache}-cache_tvm-{tvm}"
