"""Gives the dynamic linker private copies of what was checked, which nothing can change afterwards.

A library that is mapped from its own file changes, or ends the process with SIGBUS, when somebody copies
another one onto it.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

from tvmconv.bundle.folder import File

_T = TypeVar("_T")
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_numbers = itertools.count(1)


def open_copy(file: File, open_library: Callable[[str], _T]) -> _T:
    """Call ``open_library`` with the path of a copy, which need not outlive the call.

    The copy is in memory, or in a temporary file where the system has no such files, no ``/proc`` or
    does not let them be executed. Raises what ``open_library`` raises, and OSError when no copy can be
    made.
    """
    try:
        with _in_memory(file) as path:
            return open_library(path)
    except (OSError, RuntimeError, AttributeError):  # the last: no memfd_create in this C library
        with _in_temporary_file(file) as path:
            return open_library(path)


@contextlib.contextmanager
def _in_memory(file: File) -> Iterator[str]:
    number = os.memfd_create(file.path.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(number, "wb", closefd=False) as copy:
            copy.write(file.contents)
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, _SEALS)
        yield f"/proc/self/fd{_spelling(next(_numbers))}{number}"
    finally:
        os.close(number)


def _spelling(number: int) -> str:
    """Spell a number in detours that lead nowhere, a digit each: ``/`` is 0, ``/.`` is 1.

    The dynamic linker returns the library it has when it sees a path again, and descriptors are used again.
    """
    return "".join("/." if digit == "1" else "/" for digit in f"{number:b}") + "/"


@contextlib.contextmanager
def _in_temporary_file(file: File) -> Iterator[str]:
    import tempfile  # here, because few processes need it, and it takes 3 ms

    number, path = tempfile.mkstemp(prefix="tvmconv-", suffix=".so")
    try:
        with open(number, "wb") as copy:
            copy.write(file.contents)
        yield path
    finally:
        os.unlink(path)  # what is mapped outlives its name
