"""What was measured of a batch: a file of JSON lines, written trial by trial, read back by the tuner.

The first line says of which batch and on what CPU; then comes a line for each candidate and, when a layer
is done, one for the last comparison. Every line is on the disk before the next candidate runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvmconv.errors import BatchError
from tvmconv.files import decode, parse_json, read_bytes

FORMAT = 2  # 2 has measurements on GPUs
_COPY = "Copy it again from where it was measured; there, `tvmconv measure` again goes on"


@dataclass(frozen=True)
class Header:
    """Where the results come from.

    Attributes:
        batch: `Batch.name`.
        machine: what the kernels were compiled for.
        cpu, features: what they ran on; for a GPU its name as the driver has it, and no features.
        driver: of a GPU, None for a CPU.
        peak: its multiply-add roof, operations a second; of a GPU by the machine's facts.
        tvmconv: version of what measured.
    """

    batch: str
    machine: str
    cpu: str
    features: tuple[str, ...]
    driver: str | None
    peak: float
    tvmconv: str
    format: int = FORMAT


@dataclass(frozen=True)
class Timed:
    """One candidate: the layer's key, its place in the layer, and seconds or what went wrong."""

    layer: str
    kernel: int
    seconds: float | None
    error: str | None = None


@dataclass(frozen=True)
class Final:
    """A layer's last comparison.

    ``compared`` are places in the layer, the default first; ``times`` the seconds by process, kernel and
    round; ``error`` is why there are none.
    """

    layer: str
    compared: tuple[int, ...]
    times: tuple[tuple[tuple[float, ...], ...], ...]
    error: str | None = None


@dataclass
class Results:
    """All that a file holds."""

    header: Header
    timed: dict[tuple[str, int], Timed] = field(default_factory=dict)
    finals: dict[str, Final] = field(default_factory=dict)


_KINDS: dict[str, Any] = {"results": Header, "timed": Timed, "final": Final}
_NAMES = {kind: name for name, kind in _KINDS.items()}
Line = Header | Timed | Final


def read(file: Path) -> Results:
    """Return what a file holds; raises BatchError when a line of it is torn or damaged."""
    results, end = _parse(file, read_bytes(file))
    size = file.stat().st_size
    if end != size:
        raise BatchError(f"{file} is torn: {size - end} bytes at its end are no line. {_COPY}.")
    if results is None:
        raise BatchError(f"{file} is empty. {_COPY}.")
    return results


class ResultsWriter:
    """A results file that is being written; use it in `opened`."""

    def __init__(self, file: Path, stream: Any, results: Results | None) -> None:
        self._file, self._stream, self._results = file, stream, results

    @property
    def results(self) -> Results:
        """What the file holds by now, which has a header."""
        if self._results is None:
            raise BatchError(f"{self._file} has no header yet")
        return self._results

    @property
    def begun(self) -> bool:
        """Whether there is a header."""
        return self._results is not None

    def add(self, line: Line) -> None:
        """Append a line; it is on the disk when this returns. Raises BatchError when it cannot be."""
        text = json.dumps({_NAMES[type(line)]: dataclasses.asdict(line)}) + "\n"
        try:
            self._stream.write(text.encode())
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise _cannot_write(self._file, error) from error
        self._results = _with(self._results, line)


@contextlib.contextmanager
def opened(file: Path) -> Iterator[ResultsWriter]:
    """Open a results file to go on with it, or a new one; a torn end of it is cut off.

    Raises BatchError when it cannot be written, holds something else, or another process is at it.
    """
    try:
        stream = open(file, "ab+")  # noqa: SIM115 - closed below
    except OSError as error:
        raise _cannot_write(file, error) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BatchError(
                f"another `tvmconv measure` is at work on {file}: wait until it has ended, or give "
                "another --output"
            ) from error
        stream.seek(0)
        results, end = _parse(file, stream.read())
        stream.truncate(end)
        yield ResultsWriter(file, stream, results)


def _parse(file: Path, content: bytes) -> tuple[Results | None, int]:
    """Return what whole lines say, and where they end."""
    results: Results | None = None
    end = 0
    for number, text in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            ((name, body),) = parse_json(text).items()
            if name == "results" and body.get("format") != FORMAT:
                raise BatchError(
                    f"{file} has format {body.get('format')}; this tvmconv reads format {FORMAT}. "
                    "Install the same tvmconv on both machines."
                )
            results = _with(results, decode(_KINDS[name], body, f"line {number}"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BatchError(
                f"{file}, line {number}: no result of `tvmconv measure` ({error}). {_COPY}."
            ) from error
        end += len(text) + 1
    return results, end


def _with(results: Results | None, line: Line) -> Results:
    if isinstance(line, Header):
        if results is not None:
            raise ValueError("a second header")
        return Results(line)
    if results is None:
        raise ValueError("the header is missing")
    if isinstance(line, Timed):
        if (line.seconds is None) == (line.error is None) or not (line.seconds or 1.0) > 0:
            raise ValueError("it must have either seconds or an error")
        results.timed[line.layer, line.kernel] = line
    else:
        results.finals[line.layer] = line
    return results


def _cannot_write(file: Path, error: OSError) -> BatchError:
    return BatchError(
        f"cannot write {file}: {error.strerror}. What was written before is kept. Make room, or give a "
        "file in a folder that can be written with --output; then run the same command again."
    )
