"""Upkeep of tuning records: several directories into one, one's own into the shipped ones, old ones out.

Every operation reads and checks all that it needs before it writes the first file, holds the lock of the
directory that it changes, and replaces files whole. What ends in the middle leaves each file as it was
or as it was to be, and the same command does the rest.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmconv import hardware
from tvmconv.errors import HardwarePackError, RecordError, TuningError, UnknownNameError
from tvmconv.hardware import HardwarePack, Machine
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import choice, log
from tvmconv.records.log import Entry, Line
from tvmconv.records.record import NewerFormatError, Record


@dataclass(frozen=True)
class Change:
    """What an operation does with one record.

    Attributes:
        action: ``added``, ``replaced`` (another of its key), ``kept`` (the one that is there, in place
            of this), ``refused`` or ``removed``.
        machine: the folder that it stands in.
        key, gain: the record's; None of a line that is damaged.
        file, line: where it stands.
        reason: why, for people; empty where the action says it all.
    """

    action: str
    machine: str
    key: str | None
    gain: float | None
    file: str
    line: int
    reason: str = ""


@dataclass(frozen=True)
class _Merit:
    """A reason to prefer a record: ``of`` is greater for the better one, ``show`` spells it."""

    of: Callable[[Record], Any]
    show: Callable[[Record], str]


# The first in which two records differ decides.
_MERITS = (
    _Merit(lambda r: not r.simulated, lambda r: "simulated" if r.simulated else "measured"),
    _Merit(lambda r: choice.other_release(r) is None, lambda r: f"TVM {r.tvm}"),
    _Merit(lambda r: r.gain, lambda r: f"gain {r.gain:.3f}"),
    _Merit(lambda r: r.date, lambda r: f"date {r.date}"),
)


def better(record: Record, other: Record) -> str | None:
    """Say why ``record`` is to be preferred to ``other``, of the same key and machine; None if it is not.

    A measured time before a simulated one, and the TVM release that is installed before others, whose
    code is not what would be built. Then the greater gain over the default, then the newer date.

    The gain and not the time: both sides of the gain were timed in the same interleaved rounds, so
    what was the matter with the machine that day (clock, neighbours, another stepping) is in both and
    cancels. Times of two days differ by more than good candidates do; the faster of them would often
    be that of the faster day. A day cannot make a gain, but a bad default can: where a release of this
    package has improved the default, older gains are too great, and tuning again is what helps. Gains
    are compared exactly, though they are known to about 1 % only: were near ones equal, the outcome
    of a merge would depend on the order of its sources.
    """
    for merit in _MERITS:
        mine, others = merit.of(record), merit.of(other)
        if mine != others:
            return f"{merit.show(record)} beats {merit.show(other)}" if mine > others else None
    return None


def merge(sources: Sequence[Path], into: Path, dry_run: bool = False) -> list[Change]:
    """Put the records of several directories into one, where the better of a machine and key stays.

    Raises ValueError for a source that holds no logs, RecordError for a damaged file or a record in the
    wrong one, TuningError where ``into`` cannot be written.
    """
    offered = [entry for source in sources for entry in _offered(source, into)]
    return _put(offered, into, dry_run)


def promote(
    source: Path,
    machine_name: str,
    keys: Collection[str] | None,
    into: Path,
    dry_run: bool = False,
) -> list[Change]:
    """Put one machine's records from ``source`` into ``into`` as `merge` does, but good ones only.

    ``keys`` are those wanted, None for all. Those that no longer apply or do not beat the default are
    refused, whatever is there. ``source`` stays as it is. Raises what `merge` and
    `hardware.find_machine` do, and UnknownNameError when there is no record of any of ``keys``.
    """
    machine, pack = hardware.find_machine(machine_name)
    found = _offered(source, into, machine.name)
    if keys is not None:
        specs = [ConvSpec.from_key(key) for key in keys]
        keys = {choice.permitted(spec, machine, pack).key for spec in specs}
    offered = [entry for entry in found if keys is None or entry.record.key in keys]
    if not offered:
        raise _none_of(keys or (), found, source, machine.name)
    reasons = [(entry, _useless(entry.record, (machine, pack))) for entry in offered]
    refused = [_change("refused", entry, reason) for entry, reason in reasons if reason]
    fine = [entry for entry, reason in reasons if not reason]
    return _sorted([*refused, *_put(fine, into, dry_run)])


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
    with _locked(_checked(directory), dry_run):
        files = log_files(directory, machine)
        homes = {name: _home(name) for name in {file.parent.name for file in files}}
        pruned = [_pruned(file, homes[file.parent.name], damaged) for file in files]
        if not dry_run:
            for each in pruned:
                _take_out(each)
    return [change for each in pruned for change in each.removed]


def log_files(directory: Path, machine: str | None = None) -> list[Path]:
    """Return the logs in a directory, of one machine or of all.

    Raises ValueError when it is no directory of logs, UnknownNameError when it has none of ``machine``.
    """
    files = sorted(_checked(directory).glob("*/*.jsonl"))
    if not files:
        inside = any(directory.glob("*.jsonl"))
        hint = f" Did you mean {directory.resolve().parent}?" if inside else ""
        raise ValueError(f"{directory} holds no tuning records (<machine>/<op>.jsonl).{hint}")
    machines = {file.parent.name for file in files}
    if machine is not None and machine not in machines:
        message = hardware.unknown("folder", machine, machines)
        raise UnknownNameError(f"{directory} has no records for {machine}: {message}")
    return [file for file in files if machine in (None, file.parent.name)]


def _folder(machine_name: str) -> str:
    """The folder of a machine that is called so, or of a board that has it; of an unknown one, its name."""
    try:
        return hardware.find_machine(machine_name)[0].name
    except UnknownNameError:
        return machine_name


def _checked(directory: Path) -> Path:
    if not directory.is_dir():
        raise ValueError(f"{directory} is not a directory")
    return directory


def _locked(directory: Path, dry_run: bool) -> AbstractContextManager[None]:
    """Lock a directory, unless nothing will be written: then it may be one that cannot be."""
    return contextlib.nullcontext() if dry_run else log.locked(directory)


def _offered(source: Path, into: Path, machine: str | None = None) -> list[Entry]:
    """Return the records in ``source`` that count, the last of each key; all of them must be sound."""
    files = log_files(source, machine)
    if into.is_dir() and source.samefile(into):
        raise ValueError(f"{source} is both where records come from and where they go")
    offered = {}
    for file in files:
        for entry in log.read_log(file):
            reason = _misplaced(entry)
            if reason:
                raise RecordError(
                    f"{file}, line {entry.line}: {reason}. Move the line, or take it out: "
                    f"tvmconv logs prune {shlex.quote(str(source))}"
                )
            offered[file, entry.record.key] = entry
    return list(offered.values())


def _misplaced(entry: Entry) -> str | None:
    """Say why nobody would look for a record in its file; None if that is where it belongs."""
    belongs = log.log_file(
        entry.file.parent.parent, entry.record.machine, ConvSpec.from_key(entry.record.key).op
    )
    if belongs == entry.file:
        return None
    return f"it belongs into {belongs.parent.name}/{belongs.name}, where it would be looked for"


def _put(offered: Sequence[Entry], into: Path, dry_run: bool) -> list[Change]:
    """Let every entry compete with the others and with what is there, and write the winners."""
    if not offered:
        return []
    with _locked(into, dry_run):
        files = dict.fromkeys(_destination(entry, into) for entry in offered)
        there = {file: {entry.record.key: entry for entry in log.read_log(file)} for file in files}
        best = {file: dict(entries) for file, entries in there.items()}
        for entry in offered:
            rivals = best[_destination(entry, into)]
            rival = rivals.get(entry.record.key)
            if rival is None or better(entry.record, rival.record):
                rivals[entry.record.key] = entry
        if not dry_run:
            for file in files:
                if best[file] != there[file]:
                    log.store(file, [entry.record for entry in best[file].values()])
    return _sorted(_outcome(entry, into, there, best) for entry in offered)


def _destination(entry: Entry, into: Path) -> Path:
    return log.log_file(into, entry.file.parent.name, entry.file.stem)


def _outcome(
    entry: Entry,
    into: Path,
    there: dict[Path, dict[str, Entry]],
    best: dict[Path, dict[str, Entry]],
) -> Change:
    file, key = _destination(entry, into), entry.record.key
    before, winner = there[file].get(key), best[file][key]
    if winner is entry:
        if before is None:
            return _change("added", entry, "")
        return _change("replaced", entry, better(entry.record, before.record) or "")
    if winner.record == entry.record:
        return _change("kept", entry, "the same record")
    why = better(winner.record, entry.record) or "as good"
    return _change("kept", entry, f"{winner.file}:{winner.line}: {why}")


def _change(action: str, entry: Entry, reason: str) -> Change:
    record = entry.record
    machine = entry.file.parent.name
    return Change(action, machine, record.key, record.gain, str(entry.file), entry.line, reason)


def _sorted(changes: Iterable[Change]) -> list[Change]:
    return sorted(changes, key=lambda change: (change.machine, change.key or "", change.file))


def _none_of(
    keys: Collection[str], found: Sequence[Entry], source: Path, machine: str
) -> UnknownNameError | TuningError:
    """The error for a wish for records that are not there."""
    if len(keys) == 1 and found:
        known = [entry.record.key for entry in found]
        message = hardware.unknown("record", next(iter(keys)), known)
        return UnknownNameError(f"{source} has no such record for {machine}: {message}")
    wanted = f", none of them for one of these {len(keys)} convolutions" if keys else ""
    return TuningError(
        f"{source} has {len(found)} records for {machine}{wanted}. "
        f"Make some: tvmconv tune WORKLOAD --machine {machine} --output {source}"
    )


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


def _useless(record: Record, home: tuple[Machine, HardwarePack] | str) -> str | None:
    """Say why building would not use a record, or not gain by it; None if it is of use."""
    if isinstance(home, str):
        return home
    reason = choice.stale_reason(record, *home)
    if reason is None and record.gain < log.WORTHWHILE and not record.is_default:
        reason = (
            f"no faster than the default: gain {record.gain:.3f}, worthwhile from {log.WORTHWHILE}"
        )
    return reason


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
        reason = _misplaced(entry) or _useless(entry.record, home)
        if reason is None and key in latest:
            reason = f"line {latest[key]} has the same key"
        if reason is None:
            latest[key] = entry.line
        else:
            doomed[entry.line] = _change("removed", entry, reason)
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
