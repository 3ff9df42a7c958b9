"""Every trial, written down when it is made, so that a tuner can be killed and go on.

A journal is scratch beside the records: ``<machine>/.tuning/<conditions>/<key>.jsonl``, one line a trial
and one for each conclusion. It is the tuner's memory, not its result: a line that is torn costs a trial.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tvmconv import writing
from tvmconv.errors import TuningError
from tvmconv.files import decode, parse_json, read_bytes, read_json
from tvmconv.measuring.process.candidate import Candidate, Measurement
from tvmconv.problem.spec import ConvSpec


@dataclass(frozen=True)
class Conclusion:
    """How the search of a layer ended.

    Attributes:
        trials: candidates measured up to then.
        asked: the most that were asked for, or None where time was the limit.
        gain: of the best over the default, the smaller of two processes'; None when nothing was compared.
        reason: why there is no record; empty where there is one.
        session: name of the session that came to it.
    """

    trials: int
    asked: int | None
    gain: float | None
    reason: str
    session: str


@dataclass(frozen=True)
class _Trial:
    """A line of a journal: a `Measurement`, spelt out."""

    schedule: str
    decisions: dict[str, int | str]
    seconds: float | None
    error: str | None


@dataclass(frozen=True)
class Memory:
    """What a journal says of one layer: all trials in order, and the last conclusion."""

    trials: tuple[Measurement, ...] = ()
    conclusion: Conclusion | None = None


@dataclass(frozen=True)
class Spent:
    """How far a session with a budget of time has come."""

    session: str
    seconds: float
    finished: bool


class Journal:
    """The trials of one machine under one set of conditions, below a directory of records."""

    def __init__(self, directory: Path, machine: str, conditions: str) -> None:
        self.folder = scratch(directory, machine) / conditions

    def model_file(self) -> Path:
        """Where the trained cost model of these conditions belongs."""
        return self.folder / "cost.model"

    def known(self) -> list[str]:
        """Keys of all layers that have a journal."""
        return sorted(file.stem for file in self.folder.glob("*.jsonl"))

    def read(self, key: str) -> Memory:
        """Return what is known of a layer; nothing where there is no journal."""
        trials: list[Measurement] = []
        conclusion = None
        for line in self._lines(key):
            if isinstance(line, Conclusion):
                conclusion = line
            else:
                trials.append(line)
        return Memory(tuple(trials), conclusion)

    def add(self, key: str, trials: Sequence[Measurement]) -> None:
        """Append trials; they are on the disk when this returns."""
        self._append(
            key,
            [
                asdict(
                    _Trial(
                        trial.candidate.schedule,
                        dict(trial.candidate.decisions),
                        trial.seconds,
                        trial.error,
                    )
                )
                for trial in trials
            ],
        )

    def conclude(self, key: str, conclusion: Conclusion) -> None:
        """Append how a search ended."""
        self._append(key, [{"concluded": asdict(conclusion)}])

    def forget(self, key: str) -> None:
        """Throw a layer's trials away."""
        self._file(key).unlink(missing_ok=True)

    def spent(self, session: str) -> float:
        """Seconds that an unfinished session of this name has had; 0 for a new one."""
        with contextlib.suppress(ValueError):
            last: Spent = decode(Spent, self.noted("session"), "session")
            if last.session == session and not last.finished:
                return max(0.0, last.seconds)
        return 0.0

    def spend(self, spent: Spent) -> None:
        """Write down how far a session is."""
        self.note("session", asdict(spent))

    def note(self, name: str, fields: dict[str, Any]) -> None:
        """Remember something under a name, in place of what it was."""
        self._write(self.folder / f"{name}.json", fields)

    def noted(self, name: str) -> dict[str, Any] | None:
        """Return what was last noted under a name; None where there is nothing that can be read."""
        with contextlib.suppress(OSError, ValueError):
            fields = read_json(self.folder / f"{name}.json")
            return fields if isinstance(fields, dict) else None
        return None

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.jsonl"

    def _lines(self, key: str) -> Iterator[Conclusion | Measurement]:
        try:
            text = read_bytes(self._file(key))
        except OSError:
            return
        for line in text.split(b"\n"):
            with contextlib.suppress(ValueError):
                yield _decoded(line)

    def _append(self, key: str, lines: Sequence[dict[str, Any]]) -> None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self._file(key), "ab") as stream:
                if stream.tell() and not self._ends_a_line(key):
                    stream.write(b"\n")  # behind a line that a power cut has torn
                stream.write(text.encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise cannot_write(self._file(key), error) from error

    def _ends_a_line(self, key: str) -> bool:
        with open(self._file(key), "rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read(1) == b"\n"

    def _write(self, file: Path, fields: dict[str, Any]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            writing.replace(file, f"{json.dumps(fields)}\n".encode())
        except OSError as error:
            raise cannot_write(file, error) from error


def scratch(directory: Path, machine: str) -> Path:
    """The tuner's own folder beside a machine's records; hidden, and safe to delete."""
    return directory / machine / ".tuning"


def session_name(*parts: object) -> str:
    """A short name for what a command asked for: the same command, the same name."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def cannot_write(file: Path, error: OSError) -> TuningError:
    """The error for a full disk or a directory without permission; what was written before stays."""
    return TuningError(
        f"cannot write {file}: {error.strerror}. Records and trials written before are kept. "
        "Make room, or give a directory that can be written with --output; then run the same command again."
    )


def _decoded(line: bytes) -> Conclusion | Measurement:
    """Return what a line says; raises ValueError where it is torn or says something else."""
    fields = parse_json(line)
    if isinstance(fields, dict) and "concluded" in fields:
        conclusion: Conclusion = decode(Conclusion, fields["concluded"], "concluded")
        return conclusion
    trial: _Trial = decode(_Trial, fields, "trial")
    timed = trial.seconds is not None and trial.seconds > 0 and trial.error is None
    if not timed and (trial.seconds is not None or trial.error is None):
        raise ValueError("a trial has either seconds or an error")
    return Measurement(Candidate(trial.schedule, trial.decisions), trial.seconds, trial.error)


def spec_of(key: str) -> ConvSpec | None:
    """The spec of a journal's name; None for a file that is something else."""
    with contextlib.suppress(ValueError):
        return ConvSpec.from_key(key)
    return None
