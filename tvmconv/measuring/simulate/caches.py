"""Cache lines that a simulated call moves: its accesses go through a model of two levels of cache.

The model is C (caches.c), compiled with the linker that building needs anyway and kept in the cache
directory: the emulator calls it for every access. An access that is watched costs 0.4 us, ten times one
that is not and nearly all of it in unicorn (1.0 us with a callback in Python). So of a long call the
beginning is watched, and stands for the rest. Windows all over the call were tried: what the second level
holds is not known where one begins, and memory traffic came out up to six times too high.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import subprocess
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmconv import writing
from tvmconv.building import cache, toolchain
from tvmconv.errors import MissingToolError
from tvmconv.hardware import Machine

LINE_BYTES = 64
# Blocks of code that are watched, of 10 to 40 accesses each: half a second. A layer of 10 million
# multiply-adds is watched whole.
_WATCHED = 50_000


@dataclass(frozen=True)
class Traffic:
    """Bytes that moved in whole lines, both ways: between the caches, and to and from memory."""

    second_level: float = 0.0
    memory: float = 0.0


class Caches:
    """The two data caches of one core, empty at first. Raises MissingToolError without a C compiler."""

    def __init__(self, l1_bytes: int, l2_bytes: int) -> None:
        self._library = _library()
        self.address: int = self._library.create(l1_bytes, l2_bytes)
        self.hook = ctypes.cast(self._library.on_access, ctypes.c_void_p)
        weakref.finalize(self, self._library.destroy, self.address)

    @classmethod
    def of(cls, machine: Machine) -> Caches:
        """Those of a machine."""
        return cls(machine.cpu.l1_bytes, machine.cpu.l2_bytes)

    def pass_over(self, address: int, size: int, written: bool = False) -> None:
        """Use ``size`` bytes one after the other, as if before: nothing is counted."""
        if size:
            self._library.pass_over(self.address, address, size, int(written))

    @property
    def moved(self) -> tuple[int, int]:
        """Lines between the caches, and beyond the second, so far."""
        return self._library.moved(self.address, 0), self._library.moved(self.address, 1)


class Watch:
    """Watches a call on an emulated core for its first `blocks`; then it wants `rest`."""

    blocks = _WATCHED

    def __init__(self, core: Any, caches: Caches) -> None:
        self._core, self._caches = core, caches
        self._before = caches.moved
        self._hook: ctypes.c_size_t | None = _watch(core, caches)
        core.ctl_flush_tb()  # code that is translated already calls no hook

    def rest(self) -> None:
        """Watch no more."""
        if self._hook is not None:
            _check(_unicorn().uc_hook_del(self._core._uch, self._hook))
            self._core.ctl_flush_tb()
            self._hook = None

    def end(self, ran: int) -> Traffic:
        """What the whole call of so many blocks moved."""
        self.rest()
        scale = LINE_BYTES * max(1.0, ran / self.blocks)
        moved = zip(self._caches.moved, self._before, strict=True)
        return Traffic(*(scale * (after - before) for after, before in moved))


def _watch(core: Any, caches: Caches) -> ctypes.c_size_t:
    """Have every access call the model itself: `Uc.hook_add` takes Python's functions only."""
    from unicorn import UC_HOOK_MEM_READ, UC_HOOK_MEM_WRITE

    handle, kinds = ctypes.c_size_t(), UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE
    everywhere = ctypes.c_uint64(1), ctypes.c_uint64(0)
    _check(
        _unicorn().uc_hook_add(
            core._uch, ctypes.byref(handle), kinds, caches.hook, caches.address, *everywhere
        )
    )
    return handle


def _unicorn() -> Any:
    from unicorn.unicorn_py3.unicorn import uclib

    return uclib


def _check(status: int) -> None:
    from unicorn import UcError

    if status:
        raise UcError(status)


@functools.cache
def _library() -> Any:
    library = ctypes.CDLL(str(_compiled()))
    pointer, word, number = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int
    library.create.restype, library.create.argtypes = pointer, [word, word]
    library.destroy.restype, library.destroy.argtypes = None, [pointer]
    library.moved.restype, library.moved.argtypes = word, [pointer, number]
    library.pass_over.restype = None
    library.pass_over.argtypes = [pointer, word, word, number]
    return library


def _compiled() -> Path:
    """The model as a library, in the cache directory: one for each text of it."""
    source = Path(__file__).with_name("caches.c")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    file = cache.directory() / "simulate" / f"caches-{digest}.so"
    if file.is_file():
        return file
    linker = toolchain.linker()
    if linker is None:
        raise MissingToolError(
            f"a C compiler is needed to simulate kernels, found: none. To mend it: "
            f"{toolchain.check_linker().remedy}"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    with writing.scratch("caches-", file.parent) as folder:
        new = folder / file.name
        command = [*linker, "-x", "c", str(source), "-O2", "-shared", "-fPIC", "-o", str(new)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise MissingToolError(f"{' '.join(command)} failed: {result.stderr.strip()[:500]}")
        new.replace(file)
    return file
