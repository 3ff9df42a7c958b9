"""Old tuning records out: what no longer applies, is no faster than the default, or stands twice."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmconv import hardware
from tvmconv.errors import HardwarePackError, UnknownNameError
from tvmconv.hardware import HardwarePack, Machine
from tvmconv.records import log, upkeep
from tvmconv.records.log import Entry, Line
from tvmconv.records.record import NewerFormatError
from tvmconv.records.upkeep import Change


def prune(
    directory: Path, machine_name: str | None = None, damaged: bool = False, dry_run: bool = False
) -> list[Change]:
    """Take out what is of no use: what no longer applies, is no faster than the default, stands twice.

    Of lines with one key the last that is of use stays. A line that is no record is taken out only if
    ``damaged``, and a copy of its file is made first. Lines that stay are not touched.

    Raises:
        ValueError: ``directory`` holds no logs, or none of that machine.
        RecordError: a line is no record, and not ``damaged``; or one of a later release.
        HardwarePackError: a machine is unknown, and a pack that may bring it cannot be loaded.
        TuningError: ``directory`` cannot be written.

    """
    machine = None if machine_name is None else _folder(machine_name)
    with upkeep.lock(upkeep.checked(directory), dry_run):
        files = upkeep.log_files(directory, machine)
        homes = {name: _home(name) for name in {file.parent.name for file in files}}
        pruned = [_pruned(file, homes[file.parent.name], damaged) for file in files]
        if not dry_run:
            for each in pruned:
                _take_out(each)
    return [change for each in pruned for change in each.removed]


def _folder(machine_name: str) -> str:
    """The folder of a machine that is called so, or of a board that has it; of an unknown one, its name."""
    try:
        return hardware.find_machine(machine_name)[0].name
    except UnknownNameError:
        return machine_name


def _home(machine: str) -> tuple[Machine, HardwarePack] | str:
    """Return a machine and its pack, or why there is none.

    A pack that cannot be loaded here may bring it: that is no reason to remove its records.
    """
    try:
        return hardware.find_machine(machine)
    except UnknownNameError as error:
        _, broken = hardware.working_packs()
        if broken:
            raise HardwarePackError(
                f"whether the records of {machine} still apply cannot be told: {error}"
            ) from error
        return str(error)


@dataclass(frozen=True)
class _Pruned:
    """What is to become of a file: lines that stay, records that go, the copy that is made before."""

    file: Path
    kept: tuple[Line, ...]
    removed: tuple[Change, ...]
    copy: Path | None


def _pruned(file: Path, home: tuple[Machine, HardwarePack] | str, damaged: bool) -> _Pruned:
    lines = log.scan(file)
    torn = [line for line in lines if line.entry is None]
    # What a later release wrote is not damaged, and nobody here can tell whether it is of use.
    foreign = [line for line in torn if isinstance(line.error, NewerFormatError) or not damaged]
    if foreign:
        log.sound(foreign[0])  # raises
    copy = _free_name(file) if torn else None
    gone = {line.number: _torn(line, copy) for line in torn}
    gone |= _doomed([line.entry for line in lines if line.entry is not None], home)
    kept = tuple(line for line in lines if line.number not in gone)
    return _Pruned(file, kept, tuple(gone[number] for number in sorted(gone)), copy)


def _torn(line: Line, copy: Path | None) -> Change:
    reason = f"not a tuning record ({line.error}); {copy} keeps a copy"
    machine = line.file.parent.name
    return Change("removed", machine, None, None, str(line.file), line.number, reason)


def _doomed(
    entries: Sequence[Entry], home: tuple[Machine, HardwarePack] | str
) -> dict[int, Change]:
    """Return the records of a file that are of no use, by line."""
    doomed = {}
    latest: dict[str, int] = {}
    for entry in reversed(entries):
        key = entry.record.key
        reason = upkeep.misplaced(entry) or upkeep.useless(entry.record, home)
        if reason is None and key in latest:
            reason = f"line {latest[key]} has the same key"
        if reason is None:
            latest[key] = entry.line
        else:
            doomed[entry.line] = upkeep.changed("removed", entry, reason)
    return doomed


def _take_out(pruned: _Pruned) -> None:
    """Leave the lines of a file that stay, as they are; without any, the file goes too."""
    file = pruned.file
    if pruned.copy is not None:
        log.replace(pruned.copy, file.read_bytes())
    if pruned.kept and pruned.removed:
        log.replace(file, b"\n".join([*(line.content for line in pruned.kept), b""]))
    elif pruned.removed:
        file.unlink()
        with contextlib.suppress(OSError):  # the folder holds something else
            file.parent.rmdir()


def _free_name(file: Path) -> Path:
    """Return ``<file>.bak``, or with a number where an older copy has that name."""
    name, number = file.with_name(f"{file.name}.bak"), 2
    while name.exists():
        name, number = file.with_name(f"{file.name}.bak{number}"), number + 1
    return name
