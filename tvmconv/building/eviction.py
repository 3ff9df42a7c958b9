"""Keeps the kernels on the disk within a limit: those that nobody has opened for longest go first.

Entries of all versions, machines and records count: what a new version has made useless is never opened
again. An entry's time is when it was opened last, by any process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tvmconv import writing
from tvmconv.building import cache

LIMIT_VARIABLE = "TVMCONV_CACHE_MB"
_DEFAULT_MB = 1024  # some ten thousand kernels
# So much is removed beyond what is needed, so that not every kernel has to look through the folder.
_LOWER = 0.9
# Who has just opened an entry may still be reading it.
_SPARED_SECONDS = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    path: Path
    opened: float
    size: int


def limit_bytes() -> int:
    """Return the limit; ValueError where ``$TVMCONV_CACHE_MB`` is no number of megabytes."""
    given = os.environ.get(LIMIT_VARIABLE, "").strip()
    if (given and not given.isascii()) or not (given or "0").isdigit():
        raise ValueError(
            f"{LIMIT_VARIABLE} is {given!r}: give the most that the cache may hold as a whole number of "
            f"megabytes, or leave it out for {_DEFAULT_MB}"
        )
    return int(given or _DEFAULT_MB) << 20


def note_opened(entry: Path) -> None:
    """Make an entry the youngest; where nothing can be written, nothing is ever removed either."""
    with contextlib.suppress(OSError):
        os.utime(entry)


def enforce() -> None:
    """Remove the oldest entries until the rest is within the limit; never raises OSError.

    An entry that another process builds, or has opened within a minute, stays.
    """
    limit = limit_bytes()
    entries = sorted(_entries(cache.directory()), key=lambda entry: entry.opened)
    total = sum(entry.size for entry in entries)
    if total <= limit:
        return
    young = time.time() - _SPARED_SECONDS
    for entry in entries:
        if total <= _LOWER * limit or entry.opened > young:
            return
        if _remove(entry.path):
            total -= entry.size
            _log.info("%s is removed: the cache holds more than %d MB", entry.path, limit >> 20)


def _entries(folder: Path) -> Iterator[_Entry]:
    for path in folder.glob("*/*/*/*.tvmconv"):
        with contextlib.suppress(OSError):  # removed by another process meanwhile
            files = [each.lstat() for each in path.iterdir()]
            yield _Entry(path, path.stat().st_mtime, sum(each.st_blocks * 512 for each in files))


def _remove(path: Path) -> bool:
    """Remove an entry and its lock; who waits for the lock builds anew, and replaces what others build."""
    lock_file = path.with_name(f".{path.name}.lock")
    try:
        lock = writing.acquire(lock_file, "emptying the cache", seconds=0.0)
    except OSError:  # TimeoutError is one
        return False
    try:
        shutil.rmtree(path)
        lock_file.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        lock.release()
    with contextlib.suppress(OSError):  # not empty
        path.parent.rmdir()
    return True
