"""Which schedule with which decisions computes a spec: the tuned record, else the default."""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmconv import hardware
from tvmconv.hardware import HardwarePack, Machine, Schedule
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import log
from tvmconv.records.record import Record

# What a schedule or `hardware` raises for decisions that it does not know or cannot follow.
_STALE = (ValueError, TypeError, KeyError)


@dataclass(frozen=True)
class Selection:
    """A schedule, its decisions, and where they come from (None: the schedule's default)."""

    spec: ConvSpec
    schedule: Schedule
    decisions: dict[str, int | str]
    entry: log.Entry | None

    @property
    def source(self) -> str:
        """``default``, or the record's file and line, and what is to be known of it."""
        if self.entry is None:
            return "default"
        record = self.entry.record
        own = record.key in (self.spec.key, self.spec.strict.key)
        other = "" if own else " (other epilogue)"
        return self.entry.place + other + (" (simulated)" if record.simulated else "")


def default_choice(
    spec: ConvSpec, machine: Machine, pack: HardwarePack, winograd: bool = True
) -> Selection:
    """The best schedule's own decisions, from the machine's facts alone."""
    schedule = hardware.schedules_for(spec, machine, pack, winograd)[0]
    return Selection(spec, schedule, schedule.default(spec, machine), None)


def permitted(spec: ConvSpec, machine: Machine, pack: HardwarePack) -> ConvSpec:
    """``spec`` without a permission, as `ConvSpec.tf32`, that no schedule of the pack uses on the machine.

    A schedule that uses it accepts no spec without it. With the rest the kernels of both are the same,
    and so are their records: those stand under the key of what is returned.
    """
    strict = spec.strict
    used = spec.tf32 and any(
        each.accepts(spec, machine) and not each.accepts(strict, machine) for each in pack.schedules
    )
    return spec if used else strict


def choose(
    spec: ConvSpec,
    machine: Machine,
    pack: HardwarePack,
    directories: Sequence[Path] | None = None,
    winograd: bool = True,
) -> Selection:
    """Look up ``spec`` in this order, and take the first that exists.

    1. a record in the user's own directory (``tvmconv tune`` writes there),
    2. a record shipped with the package,
    3. in the same order, a record of the same convolution with another epilogue,
    4. the default of the first schedule that accepts the spec.

    For a spec that allows TF32, on a machine that has no use for it, records are those of strict float32.
    ``directories`` replaces those of 1 to 3. Without ``winograd``, records and schedules that use
    Winograd's algorithm are passed over. Raises RecordError for a record that is damaged, of another
    release of TVM, or no longer applies, and ValueError as `hardware.require_indexable` does.
    """
    hardware.require_indexable(spec)
    if directories is None:
        directories = log.default_directories()
    avoided = () if winograd else {each.name for each in pack.schedules if each.winograd}
    recorded = permitted(spec, machine, pack)
    entry = log.find(recorded, machine.name, directories, lambda r: r.schedule not in avoided)
    if entry is None:
        return default_choice(spec, machine, pack, winograd)
    try:
        schedule = _applicable(entry.record, spec, machine, pack)
    except _STALE as error:
        raise log.stale(entry, error) from error
    return Selection(spec, schedule, dict(entry.record.decisions), entry)


def stale_reason(record: Record, machine: Machine, pack: HardwarePack) -> str | None:
    """Say why `choose` would refuse a record of ``machine`` for its own spec; None if it would not."""
    spec = ConvSpec.from_key(record.key)
    recorded = permitted(spec, machine, pack)
    if recorded != spec:
        return f"no schedule of {machine.name} uses TF32 here: the record of {recorded.key} counts"
    try:
        _applicable(record, spec, machine, pack)
    except _STALE as error:
        return str(error)
    return None


def other_release(record: Record) -> str | None:
    """Say which other release of TVM made a record; None if it is of the one that is installed.

    Releases differ in major or minor number; 0.27.0 and 0.27.0.post1 are taken to make the same code of
    the same decisions. Where apache-tvm is not installed nothing is compiled, and every record will do.
    The tuner may start from such a record; only building with it would trust a time of other code.
    """
    installed = _installed_tvm()
    if installed is None or _release(record.tvm) == _release(installed):
        return None
    return f"it was measured with TVM {record.tvm}, and TVM {installed} is installed"


@functools.cache
def _installed_tvm() -> str | None:
    try:
        return importlib.metadata.version("apache-tvm")
    except importlib.metadata.PackageNotFoundError:
        return None


def _release(version: str) -> str:
    """Return ``MAJOR.MINOR``, or all of a version that does not begin like that."""
    match = re.match(r"\d+\.\d+", version)
    return match.group() if match else version


def _applicable(record: Record, spec: ConvSpec, machine: Machine, pack: HardwarePack) -> Schedule:
    """Return the record's schedule; raises one of `_STALE` where it may not compute ``spec`` so."""
    reason = other_release(record)
    if reason is not None:
        raise ValueError(reason)
    schedule = hardware.find_schedule(record.schedule, pack)
    if not schedule.accepts(spec, machine):
        raise ValueError(f"{schedule.name} does not accept this spec")
    hardware.check_decisions(schedule, spec, machine, record.decisions)
    return schedule
