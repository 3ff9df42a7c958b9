"""Tuning records: one JSON line per spec, keyed by ``spec.key``, in ``<machine>/<op>.jsonl``.

A record names its schedule and decisions in words, with the times and how they came about, so that a
person can read, compare and edit it, and so that it outlives a release of TVM. A record that cannot be
used is an error that names file, line and remedy; it is never passed over in silence.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tvmconv.errors import RecordError, TuningError
from tvmconv.spec import ConvSpec

Choice = int | str


@dataclass(frozen=True)
class Record:
    """The best decisions found for one spec on one machine.

    Attributes:
        key: ``ConvSpec.key``.
        schedule: name of the schedule that the decisions belong to.
        decisions: the schedule's knobs, by name.
        microseconds: median time of one call with these decisions.
        default_microseconds: the same for the schedule's default, in the same interleaved rounds.
        machine: name of the machine the kernel was compiled for.
        cpu: the CPU's own name, where it was measured.
        threads: threads of one call.
        tvm: version of TVM that compiled it.
        date: ISO date of the measurement.
        trials: candidates measured before this one was chosen.
        measured: how: where, which cache state, which statistic.
    """

    key: str
    schedule: str
    decisions: dict[str, Choice]
    microseconds: float
    default_microseconds: float
    machine: str
    cpu: str
    threads: int
    tvm: str
    date: str
    trials: int
    measured: str


@dataclass(frozen=True)
class Entry:
    """A record and the line of the file it stands in."""

    record: Record
    file: Path
    line: int

    @property
    def place(self) -> str:
        """``<machine>/<op>.jsonl:LINE``, short enough for a table."""
        return f"{self.file.parent.name}/{self.file.name}:{self.line}"


def shipped_directory() -> Path:
    """The records that are installed with this package."""
    return Path(str(resources.files("tvmconv.tuning_logs")))


def user_directory() -> Path:
    """Where ``tvmconv tune`` writes unless it is told otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local/share")
    return Path(base) / "tvmconv" / "tuning_logs"


def default_directories() -> tuple[Path, ...]:
    """Directories in the order they are searched: the user's own records win."""
    return (user_directory(), shipped_directory())


def log_file(directory: Path, machine: str, op: str) -> Path:
    """The file that holds a machine's records of one operator."""
    return directory / machine / f"{op}.jsonl"


def _remedy(file: Path, line: int, machine: str, key: str = "KEY") -> str:
    return (
        f"Delete that line (sed -i '{line}d' {file}) and tune again: "
        f"tvmconv tune {key} --machine {machine} --output {file.parent.parent}"
    )


def read_log(file: Path) -> list[Entry]:
    """Read one log file; a file that does not exist holds no records.

    Raises RecordError, with file, line and remedy, for a line that is torn, lacks a field, has one of
    a wrong type, or whose key spells no spec.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{file} cannot be read: {error}. Restore or remove the file.") from error
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = parse_record(json.loads(line))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RecordError(
                f"{file}, line {number}: not a tuning record ({error}). "
                + _remedy(file, number, file.parent.name)
            ) from error
        entries.append(Entry(record, file, number))
    return entries


def parse_record(fields: Any) -> Record:
    """Return the record that decoded JSON spells; ValueError says which field is wrong."""
    if not isinstance(fields, dict):
        raise ValueError(f"a record is an object, this is {type(fields).__name__}")
    expected = {field.name: field.type for field in dataclasses.fields(Record)}
    if set(fields) != set(expected):
        raise ValueError(
            f"missing fields {sorted(set(expected) - set(fields))}, "
            f"unknown fields {sorted(set(fields) - set(expected))}"
        )
    types: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (float, int)}
    for name, kind in expected.items():
        allowed = types.get(str(kind), (dict,))
        if not isinstance(fields[name], allowed) or isinstance(fields[name], bool):
            raise ValueError(f"{name} is {fields[name]!r}, expected {kind}")
    for knob, value in fields["decisions"].items():
        if not isinstance(value, int | str) or isinstance(value, bool):
            raise ValueError(f"decision {knob!r} is {value!r}, expected a number or a word")
    if ConvSpec.from_key(fields["key"]).key != fields["key"]:
        raise ValueError(f"{fields['key']!r} is not how that spec is spelt")
    return Record(**fields)


def find(spec: ConvSpec, machine: str, directories: Sequence[Path]) -> Entry | None:
    """Return the record for ``spec`` on ``machine`` in the first directory that has one.

    Where none has, a record of the same convolution with another epilogue serves: the tile is decided
    by the sum, not by what happens to it at the end. The last line wins within a file. Raises
    RecordError when a file on the way is damaged.
    """
    logs = [read_log(log_file(directory, machine, spec.op)) for directory in directories]
    entries = [entry for log in logs for entry in reversed(log)]
    exact = (entry for entry in entries if entry.record.key == spec.key)
    siblings = (entry for entry in entries if same_core(entry.record.key, spec))
    return next(exact, None) or next(siblings, None)


def same_core(key: str, spec: ConvSpec) -> bool:
    """Whether ``key`` spells ``spec`` with any epilogue: all of them begin alike."""
    core = spec.core_key
    return key == core or key.startswith(f"{core}_")


def stale(entry: Entry, reason: object) -> RecordError:
    """The error for a sound record whose decisions no longer apply."""
    record = entry.record
    return RecordError(
        f"{entry.file}, line {entry.line}: the record for {record.key} (tvm {record.tvm}, "
        f"{record.date}) no longer applies: {reason}. "
        + _remedy(entry.file, entry.line, record.machine, record.key)
    )


def write(directory: Path, records: Iterable[Record]) -> list[Path]:
    """Put records into their files, each replacing the one of the same key; returns the files.

    A file is replaced whole or not at all, and is kept sorted by key so that differences read well.
    Raises TuningError when the directory cannot be written, RecordError when a file is damaged.
    """
    files: dict[Path, list[Record]] = {}
    for record in records:
        op = ConvSpec.from_key(record.key).op
        files.setdefault(log_file(directory, record.machine, op), []).append(record)
    for file, new in files.items():
        merged = {entry.record.key: entry.record for entry in read_log(file)}
        merged |= {record.key: record for record in new}
        lines = [json.dumps(dataclasses.asdict(merged[key])) + "\n" for key in sorted(merged)]
        _replace(file, "".join(lines))
    return list(files)


def remove(directory: Path, machine: str, key: str) -> bool:
    """Take the record of ``key`` out of ``directory``; tells whether there was one."""
    file = log_file(directory, machine, ConvSpec.from_key(key).op)
    records = [entry.record for entry in read_log(file)]
    kept = [record for record in records if record.key != key]
    if len(kept) == len(records):
        return False
    _replace(file, "".join(json.dumps(dataclasses.asdict(record)) + "\n" for record in kept))
    return True


def _replace(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide a shared log from its readers
            os.replace(temporary, file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise TuningError(
            f"cannot write tuning records to {file}: {error.strerror}. "
            "Give a directory that can be written with --output."
        ) from error
