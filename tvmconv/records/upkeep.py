"""Upkeep of tuning records: several directories into one, one's own into the shipped ones.

Every operation reads and checks all that it needs before it writes the first file, holds the lock of the
directory that it changes, and replaces files whole. What ends in the middle leaves each file as it was
or as it was to be, and the same command does the rest.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tvmconv import hardware
from tvmconv.errors import RecordError, TuningError, UnknownNameError
from tvmconv.hardware import HardwarePack, Machine
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import choice, log
from tvmconv.records.log import Entry
from tvmconv.records.merit import better
from tvmconv.records.record import Record


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
    reasons = [(entry, useless(entry.record, (machine, pack))) for entry in offered]
    refused = [changed("refused", entry, reason) for entry, reason in reasons if reason]
    fine = [entry for entry, reason in reasons if not reason]
    return _sorted([*refused, *_put(fine, into, dry_run)])


def log_files(directory: Path, machine: str | None = None) -> list[Path]:
    """Return the logs in a directory, of one machine or of all.

    Raises ValueError when it is no directory of logs, UnknownNameError when it has none of ``machine``.
    """
    files = sorted(checked(directory).glob("*/*.jsonl"))
    if not files:
        inside = any(directory.glob("*.jsonl"))
        hint = f" Did you mean {directory.resolve().parent}?" if inside else ""
        raise ValueError(f"{directory} holds no tuning records (<machine>/<op>.jsonl).{hint}")
    machines = {file.parent.name for file in files}
    if machine is not None and machine not in machines:
        message = hardware.unknown("folder", machine, machines)
        raise UnknownNameError(f"{directory} has no records for {machine}: {message}")
    return [file for file in files if machine in (None, file.parent.name)]


def checked(directory: Path) -> Path:
    """Return a directory; raises ValueError for what is none."""
    if not directory.is_dir():
        raise ValueError(f"{directory} is not a directory")
    return directory


def lock(directory: Path, dry_run: bool) -> AbstractContextManager[None]:
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
            reason = misplaced(entry)
            if reason:
                raise RecordError(
                    f"{file}, line {entry.line}: {reason}. Move the line, or take it out: "
                    f"tvmconv logs prune {shlex.quote(str(source))}"
                )
            offered[file, entry.record.key] = entry
    return list(offered.values())


def misplaced(entry: Entry) -> str | None:
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
    with lock(into, dry_run):
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
            return changed("added", entry, "")
        return changed("replaced", entry, better(entry.record, before.record) or "")
    if winner.record == entry.record:
        return changed("kept", entry, "the same record")
    why = better(winner.record, entry.record) or "as good"
    return changed("kept", entry, f"{winner.file}:{winner.line}: {why}")


def changed(action: str, entry: Entry, reason: str) -> Change:
    """What is done with an entry where it stands."""
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


def useless(record: Record, home: tuple[Machine, HardwarePack] | str) -> str | None:
    """Say why building would not use a record, or not gain by it; None if it is of use."""
    if isinstance(home, str):
        return home
    reason = choice.stale_reason(record, *home)
    if reason is None and record.gain < log.WORTHWHILE and not record.is_default:
        reason = (
            f"no faster than the default: gain {record.gain:.3f}, worthwhile from {log.WORTHWHILE}"
        )
    return reason
