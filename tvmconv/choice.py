"""Which schedule with which decisions computes a spec: the tuned record, else the default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmconv import hardware
from tvmconv.hardware import HardwarePack, Machine, Schedule
from tvmconv.spec import ConvSpec
from tvmconv.tuning import log


@dataclass(frozen=True)
class Choice:
    """A schedule, its decisions, and where they come from (None: the schedule's default)."""

    spec: ConvSpec
    schedule: Schedule
    decisions: dict[str, int | str]
    entry: log.Entry | None

    @property
    def source(self) -> str:
        """``default``, or the record's file and line, and whether it was tuned with this epilogue."""
        if self.entry is None:
            return "default"
        same = self.entry.record.key == self.spec.key
        return self.entry.place if same else f"{self.entry.place} (other epilogue)"


def default_choice(spec: ConvSpec, machine: Machine, pack: HardwarePack) -> Choice:
    """The best schedule's own decisions, from the machine's facts alone."""
    schedule = hardware.schedules_for(spec, machine, pack)[0]
    return Choice(spec, schedule, schedule.default(spec, machine), None)


def choose(
    spec: ConvSpec, machine: Machine, pack: HardwarePack, directories: Sequence[Path] | None = None
) -> Choice:
    """Look up ``spec`` in this order, and take the first that exists.

    1. a record in the user's own directory (``tvmconv tune`` writes there),
    2. a record shipped with the package,
    3. in the same order, a record of the same convolution with another epilogue,
    4. the default of the first schedule that accepts the spec.

    ``directories`` replaces those of 1 to 3. Raises RecordError for a record that is damaged or no
    longer applies.
    """
    if directories is None:
        directories = log.default_directories()
    entry = log.find(spec, machine.name, directories)
    if entry is None:
        return default_choice(spec, machine, pack)
    try:
        schedule = hardware.find_schedule(entry.record.schedule, pack)
        if not schedule.accepts(spec, machine):
            raise ValueError(f"{schedule.name} does not accept this spec")
        hardware.check_decisions(schedule, spec, machine, entry.record.decisions)
    except (ValueError, TypeError, KeyError) as error:
        raise log.stale(entry, error) from error
    return Choice(spec, schedule, dict(entry.record.decisions), entry)
