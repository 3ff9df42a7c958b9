"""Tuning records: one JSON line per spec, keyed by ``spec.key``, in ``<machine>/<op>.jsonl``.

A record names its schedule and decisions in words, with the times and how they came about, so that a
person can read, compare and edit it, and so that it outlives a release of TVM. A record that cannot be
used is an error that names file, line and remedy; it is never passed over in silence.

Whoever changes a log reads it again under the directory's lock (`locked`) and replaces the file whole
(`replace`), so that processes that write at the same time lose nothing of each other. Readers need no
lock: they see a file as it was before a change or after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tvmconv import files, writing
from tvmconv.errors import RecordError, TuningError
from tvmconv.problem.spec import ConvSpec
from tvmconv.records.record import NewerFormatError, Record, encode, parse

# Interleaved medians agree to about 1 %; a smaller gain would be noise.
WORTHWHILE = 1.02
_LOCK_SECONDS = 60.0  # who holds the lock writes a few small files: milliseconds


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


@dataclass(frozen=True)
class Line:
    """A line of a log that is not empty: ``entry``, or why it holds none."""

    file: Path
    number: int
    content: bytes
    entry: Entry | None
    error: Exception | None


def shipped_directory() -> Path:
    """The records that are installed with this package."""
    return Path(str(resources.files("tvmconv.tuning_logs")))


def shipped_is_source() -> bool:
    """Whether `shipped_directory` is a source tree's, and not overwritten by the next pip install."""
    return (shipped_directory().parent / "pyproject.toml").is_file()


def user_directory() -> Path:
    """Where ``tvmconv tune`` writes unless it is told otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local/share")
    if base.startswith(
        "~"
    ):  # no home directory: a place where nothing is, and nothing can be written
        base = os.path.join("/nonexistent", ".local/share")
    return Path(base) / "tvmconv" / "tuning_logs"


def default_directories() -> tuple[Path, ...]:
    """Directories in the order they are searched: the user's own records win."""
    return (user_directory(), shipped_directory())


def log_file(directory: Path, machine: str, op: str) -> Path:
    """The file that holds a machine's records of one operator."""
    return directory / machine / f"{op}.jsonl"


def _tune(file: Path, machine: str, key: str) -> str:
    """Return the command that makes a record anew, in a place that counts before that of ``file``."""
    directory = file.parent.parent
    installed = directory == shipped_directory() and not shipped_is_source()
    output = f" --output {shlex.quote(str(directory))}"
    usual = installed or directory == user_directory()
    return f"tvmconv tune {key} --machine {machine}{'' if usual else output}"


def _delete(file: Path, line: int) -> str:
    return f"sed -i '{line}d' {shlex.quote(str(file))}"


def scan(file: Path) -> list[Line]:
    """Read one log file with what is wrong in it; a file that does not exist has no lines.

    Raises RecordError when the file cannot be read at all.
    """
    try:
        content = files.read_bytes(file)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error}. Restore or remove the file.") from error
    # Not splitlines, which also splits at form feeds: sed, in our remedies, counts line feeds only.
    lines = enumerate(content.split(b"\n"), start=1)
    return [_read_line(file, number, line) for number, line in lines if line.strip()]


def _read_line(file: Path, number: int, content: bytes) -> Line:
    try:
        record = parse(files.parse_json(content))
    except ValueError as error:
        return Line(file, number, content, None, error)
    return Line(file, number, content, Entry(record, file, number), None)


def read_log(file: Path) -> list[Entry]:
    """Read one log file; a file that does not exist holds no records.

    Raises RecordError, with file, line and remedy, for a line that is torn, of the format of a later
    release, lacks a field, has one of a wrong type, or whose key spells no spec.
    """
    return [sound(line) for line in scan(file)]


def sound(line: Line) -> Entry:
    """Return the record of a line; raises RecordError, with file, line and remedy, if it has none."""
    if line.entry is not None:
        return line.entry
    file, machine = line.file, line.file.parent.name
    if isinstance(line.error, NewerFormatError):
        raise RecordError(
            f"{file}, line {line.number}: a later tvmconv wrote this record: {line.error}. Run: "
            "pip install --upgrade tvmconv. To do without the record, delete that line "
            f"({_delete(file, line.number)}) and tune again: {_tune(file, machine, 'KEY')}"
        ) from line.error
    raise RecordError(
        f"{file}, line {line.number}: not a tuning record ({line.error}). "
        f"Delete that line ({_delete(file, line.number)}) and tune again: "
        f"{_tune(file, machine, 'KEY')}. All such lines at once, with a copy of the file: "
        f"tvmconv logs prune {shlex.quote(str(file.parent.parent))} --machine {machine} --damaged"
    ) from line.error


def find(
    spec: ConvSpec,
    machine: str,
    directories: Sequence[Path],
    usable: Callable[[Record], bool] = lambda _record: True,
) -> Entry | None:
    """Return the record for ``spec`` on ``machine`` in the first directory that has a usable one.

    Where none has, a record of the same convolution with another epilogue serves: the tile is decided
    by the sum, not by what happens to it at the end. Simulated records serve only where no directory
    has a measured one of either kind. The last line wins within a file. Raises RecordError when a file
    on the way is damaged.
    """
    logs = [read_log(log_file(directory, machine, spec.op)) for directory in directories]
    entries = [entry for log in logs for entry in reversed(log) if usable(entry.record)]
    entries = [entry for entry in entries if same_core(entry.record.key, spec)]
    entries.sort(key=lambda entry: (entry.record.simulated, entry.record.key != spec.key))
    return entries[0] if entries else None


def same_core(key: str, spec: ConvSpec) -> bool:
    """Whether ``key`` spells ``spec`` with any epilogue: all of them begin alike."""
    core = spec.core_key
    return key == core or key.startswith(f"{core}_")


def stale(entry: Entry, reason: object) -> RecordError:
    """The error for a sound record that no longer applies."""
    record, file = entry.record, entry.file
    return RecordError(
        f"{file}, line {entry.line}: the record for {record.key} (tvm {record.tvm}, "
        f"{record.date}) no longer applies: {reason}. "
        f"Delete that line ({_delete(file, entry.line)}), or tune again: "
        f"{_tune(file, record.machine, record.key)}. "
        f"All such records at once: tvmconv logs prune {shlex.quote(str(file.parent.parent))}"
    )


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes from changing the logs in ``directory``, which is made where it is missing.

    Raises MissingToolError without filelock, TuningError when the directory cannot be written or
    another process does not let go of the lock.
    """
    path = directory / ".lock"
    try:
        # Everybody's, as the records are: whether others may write is the directory's to say.
        lock = writing.acquire(path, "writing tuning records", _LOCK_SECONDS, mode=0o666)
    except TimeoutError as error:
        raise TuningError(
            f"another process has held {path} for {_LOCK_SECONDS:g} s. See which (lsof {path}), and "
            "try again when it has ended; or give another directory with --output."
        ) from error
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def write(directory: Path, records: Iterable[Record]) -> list[Path]:
    """Put records into their files, each replacing the one of the same key; returns the files.

    A simulated one does not replace a measured one.
    A file is replaced whole or not at all, and is kept sorted by key so that differences read well.
    Raises TuningError when the directory cannot be written, RecordError, before anything is written,
    when a file is damaged.
    """
    new: dict[Path, list[Record]] = {}
    for record in records:
        op = ConvSpec.from_key(record.key).op
        new.setdefault(log_file(directory, record.machine, op), []).append(record)
    if not new:
        return []
    with locked(directory):
        old = {file: [entry.record for entry in read_log(file)] for file in new}
        for file in new:
            measured = {record.key for record in old[file] if not record.simulated}
            fit = [r for r in new[file] if not (r.simulated and r.key in measured)]
            store(file, [*old[file], *fit])
    return list(new)


def remove(directory: Path, machine: str, key: str) -> bool:
    """Take the record of ``key`` out of ``directory``; tells whether there was one."""
    file = log_file(directory, machine, ConvSpec.from_key(key).op)
    if all(entry.record.key != key for entry in read_log(file)):
        return False  # without a lock, which a directory that cannot be written would not give
    with locked(directory):
        records = [entry.record for entry in read_log(file)]
        store(file, [record for record in records if record.key != key])
    return True


def store(file: Path, records: Iterable[Record]) -> None:
    """Replace a log by these records, of which the last of a key counts; call it under `locked`."""
    latest = {record.key: record for record in records}
    lines = [json.dumps(encode(latest[key])) + "\n" for key in sorted(latest)]
    replace(file, "".join(lines).encode())


def replace(file: Path, content: bytes) -> None:
    """Give a file new content, whole or not at all; call it under `locked`.

    Raises TuningError, with the old content in place, when it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        writing.replace(file, content)
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> TuningError:
    return TuningError(
        f"cannot write tuning records to {file}: {error.strerror or error}; what was there is as it "
        "was. Make room, or give a directory that can be written with --output "
        "(of tvmconv logs: --into)."
    )
