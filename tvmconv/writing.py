"""Writes where other processes read and write: whole or not at all, one at a time, nothing left behind.

What is not finished has a name that ends in `_SUFFIX`, and its process holds it with flock as long as it
lives: whoever comes next into that folder removes what nobody holds. A process number in the name would
tell less: it is used again, and means nothing in another container. Where a file system knows no flock,
nothing is removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tvmconv.errors import INSTALL_COMPILER, MissingToolError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_SUFFIX = ".tvmconv-tmp"
_POLL_SECONDS = 0.01


def acquire(path: Path, what_for: str, seconds: float = -1.0, mode: int = 0o644) -> BaseFileLock:
    """Return the lock of a file, acquired; its folder is made where it is missing.

    It waits ``seconds``, for ever if below 0. ``mode`` is the lock file's. Raises MissingToolError without
    filelock, TimeoutError when another process does not let go of it, and any other OSError when it
    cannot be made or the file system has no locks.
    """
    try:
        import filelock
    except ImportError as error:
        raise MissingToolError(
            f"filelock is needed for {what_for}, and is not installed. To mend it: "
            f"{INSTALL_COMPILER}. `tvmconv doctor` checks the rest."
        ) from error
    lock = filelock.FileLock(path, timeout=seconds, mode=mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(poll_interval=_POLL_SECONDS)
    except NotImplementedError as error:  # filelock's word for a file system without locks
        raise OSError(errno.ENOLCK, f"it cannot be locked ({error})", str(path)) from error
    return lock


def replace(file: Path, content: bytes) -> None:
    """Give a file new content, whole or not at all; raises OSError, with the old content in place."""
    with replacing(file) as stream:
        stream.write(content)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[IO[bytes]]:
    """Yield a stream whose content becomes that of ``file`` when the block ends without an error.

    Everybody may read the file, whatever the umask. Raises OSError where it cannot be written.
    """
    remove_abandoned(file.parent)
    path, claim = _claimed(lambda: _new_file(file))
    try:
        with open(claim, "wb", closefd=False) as stream:
            yield stream
            stream.flush()
            os.fsync(claim)
        os.fchmod(claim, 0o644)  # mkstemp's 0600 would hide it from its readers
        path.replace(file)
    finally:
        path.unlink(missing_ok=True)
        os.close(claim)


@contextlib.contextmanager
def scratch(prefix: str, folder: Path | None = None) -> Iterator[Path]:
    """Yield a new folder, in ``folder`` or where temporary files belong; it is removed at the end.

    What killed processes have left beside it is removed first.
    """
    beside = folder or Path(tempfile.gettempdir())
    remove_abandoned(beside)
    path, claim = _claimed(lambda: Path(tempfile.mkdtemp(_SUFFIX, prefix, beside)))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(claim)


def remove_abandoned(folder: Path) -> None:
    """Remove what `replacing` and `scratch` have left in ``folder`` in processes that are gone."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for path in [Path(entry.path) for entry in entries if entry.name.endswith(_SUFFIX)]:
            with contextlib.suppress(OSError):  # another user's, or gone meanwhile
                _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    handle = _open(path)
    try:
        if not _hold(handle):
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(handle)


def _new_file(file: Path) -> Path:
    handle, name = tempfile.mkstemp(_SUFFIX, f".{file.name}-", file.parent)
    os.close(handle)
    return Path(name)


def _claimed(make: Callable[[], Path]) -> tuple[Path, int]:
    """Return something new, and the open descriptor by which this process holds it."""
    while True:
        path = make()
        with contextlib.suppress(FileNotFoundError):
            handle = _open(path)
            # Somebody who removes what is abandoned may have come before it was held.
            if _hold(handle) is not False and path.exists():
                return path, handle
            os.close(handle)


def _open(path: Path) -> int:
    kind = os.O_RDONLY | os.O_DIRECTORY if path.is_dir() else os.O_RDWR
    return os.open(path, kind | os.O_NOFOLLOW | os.O_CLOEXEC)


def _hold(handle: int) -> bool | None:
    """Whether this process holds it now; None where the file system knows no flock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
