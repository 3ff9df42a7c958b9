"""Reads a bundle's files from one directory and each of them once: what was checked is what is used.

A path that is opened twice may name another file the second time, and a file that is mapped changes with
every write to it: so nothing is mapped. Standard library only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_PIECE = 64 << 20  # bytes of one read


@dataclasses.dataclass(frozen=True)
class File:
    """A file as it was read; ``path`` is for messages, whatever lies there by now."""

    path: Path
    contents: bytes = dataclasses.field(repr=False)
    sha256: str


@dataclasses.dataclass(frozen=True)
class AlignedFile:
    """A file in memory of this process's own, which begins at a page; an empty one has no memory.

    Not mapped from the file: whoever wrote to that in place would change the numbers under a running model,
    and whoever cut it short would end the process with SIGBUS. It takes its size once in each process, but
    those that are forked after loading share it.
    """

    path: Path
    contents: mmap.mmap | bytes = dataclasses.field(repr=False)


def read_file(path: str | os.PathLike[str], dir_fd: int | None = None) -> bytes:
    """Return the contents of a regular file; raises OSError for anything else, a pipe included."""
    with _opened(path, dir_fd) as file:
        return file.read()


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str], dir_fd: int | None) -> Iterator[io.BufferedReader]:
    # Without O_NONBLOCK the opening of a pipe would wait for a writer.
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=dir_fd)
    with open(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError("it is not a regular file")
        yield file


def whole_file(path: Path) -> File:
    """Read a library that belongs to no bundle; raises OSError as `read_file` does."""
    contents = read_file(path)
    return File(path, contents, hashlib.sha256(contents).hexdigest())


class Folder:
    """A bundle's directory, held open: one that is put in its place meanwhile is another directory.

    Raises OSError when ``path`` cannot be opened or is no directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *details: object) -> None:
        os.close(self._fd)

    def read(self, name: str) -> File:
        """Read one file; raises OSError as `read_file` does."""
        contents = read_file(name, self._fd)
        return File(self.path / name, contents, hashlib.sha256(contents).hexdigest())

    def read_aligned(self, name: str) -> AlignedFile:
        """Read one file into memory that begins at a page; raises OSError as `read_file` does."""
        with _opened(name, self._fd) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return AlignedFile(self.path / name, b"")
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            read = 0
            with memoryview(memory) as view:
                while read < size:
                    count = file.readinto(view[read : read + _PIECE])
                    if not count:
                        break  # cut short meanwhile: the checksum says so
                    read += count
        return AlignedFile(self.path / name, memory)

    def is_replaced(self) -> bool:
        """Whether the path names another directory by now, or nothing."""
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except OSError:
            return True
