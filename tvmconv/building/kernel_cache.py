"""One kernel on demand: from this process, else from the disk, else compiled and put there.

::

    ~/.cache/tvmconv/<tvmconv version>/<tvm version>/<architecture>-<digest>/<key>.tvmconv

Every entry is a bundle of one kernel. Finding one imports neither TVM nor the schedules, which
would take longer than everything else together. So the path spells what a kernel was made from and
not what was decided: `machine_digest` covers all that decides which machine this is and what its
schedules make of a problem, and the name of a tuned problem's entry ends in a digest of its
records. A change of any of it leads to another path, so nothing stale is ever found; what is not opened
any more goes when the cache reaches its limit (`eviction`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tvmconv import hardware, runtime, writing
from tvmconv.building import cache, eviction, toolchain
from tvmconv.errors import BundleError, UnknownNameError
from tvmconv.hardware import host
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import log
from tvmconv.runtime import Kernel
from tvmconv.version import __version__

if TYPE_CHECKING:
    from filelock import BaseFileLock

_PACKAGE = Path(__file__).parents[1]  # all of tvmconv
_DIGEST_LENGTH = 12  # of hexadecimal digits; the rest of a path keeps strangers apart already
_LONGEST_NAME = 150  # a file name may have 255 bytes, and building adds to it

_log = logging.getLogger(__name__)
_kernels: dict[ConvSpec, Kernel] = {}


def kernel(spec: ConvSpec) -> Kernel:
    """Return the kernel of ``spec``, whose output is not empty, for this machine.

    Raises MissingToolError, RecordError and BuildError as `tvmconv.build` does, when it must be
    compiled.
    """
    found = _kernels.get(spec)
    if found is None:
        # Two threads may both come here; setdefault keeps one kernel.
        found = _kernels.setdefault(spec, _from_disk(spec))
    return found


def entry_path(spec: ConvSpec) -> Path:
    """Return where the kernel of ``spec`` is or will be."""
    name = spec.key
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{_digest(name.encode())}"
    records = b"\n".join(_records(spec))
    if records:
        name += f"-{_digest(records)}"
    folder = f"{host.architecture()}-{machine_digest()}"
    return cache.directory() / __version__ / _version("apache-tvm") / folder / f"{name}.tvmconv"


@functools.cache
def machine_digest() -> str:
    """Return a digest of all but records and versions that kernels made here depend on.

    The CPU, which decides what `hardware.detect` answers; the sources of this package and of every
    hardware pack, which change without their version where they are installed in editable mode;
    and tvm_ffi's version, which kernels are bound to.
    """
    parts = [host.cpu_name(), host.cpu_vendor(), *sorted(host.cpu_features())]
    parts.append(_version("apache-tvm-ffi"))
    sources = set(_PACKAGE.rglob("*.py"))
    for point in importlib.metadata.entry_points(group=hardware.ENTRY_POINTS):
        version = f"{point.dist.name} {point.dist.version}" if point.dist else ""
        parts.append(f"{point.name} {point.value} {version}")
        sources.update(_pack_sources(point.module))
    digests = [f"{path} {_digest(path.read_bytes())}" for path in sorted(sources)]
    return _digest("\n".join([*parts, *digests]).encode())


def _pack_sources(module: str) -> list[Path]:
    """Return the sources of the package that holds ``module``, which is not imported itself."""
    package = module.rpartition(".")[0] or module
    try:
        spec = importlib.util.find_spec(package)
    except Exception:  # a broken pack makes no kernels
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is None:
        return [Path(spec.origin)] if spec.origin else []
    return [
        path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.py")
    ]


def _records(spec: ConvSpec) -> Iterator[bytes]:
    """Yield the records of ``spec``, whatever the epilogue, for every machine.

    Which machine this is, is not known here.
    """
    quoted = f'"{spec.core_key}'.encode()
    for number, folder in enumerate(log.default_directories()):
        for file in sorted(folder.glob(f"*/{spec.op}.jsonl")):
            for line in file.read_bytes().splitlines():
                if quoted in line:
                    yield b"%d %s %s" % (number, file.parent.name.encode(), line)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGEST_LENGTH]


def _from_disk(spec: ConvSpec) -> Kernel:
    path = entry_path(spec)
    found = _open(path, spec)
    if found is not None:
        return found
    eviction.limit_bytes()  # a mistake in it is said before a second is spent
    lock = _lock(path)
    if lock is None:
        with writing.scratch("tvmconv-") as folder:
            return _build(spec, folder / "kernel.tvmconv")  # open files outlive their names
    try:
        # Whoever held the lock before has probably built it.
        found = _open(path, spec)
        if found is not None:
            return found
        built = _replace(spec, path)
    finally:
        lock.release()
    eviction.enforce()
    return built


def _open(path: Path, spec: ConvSpec) -> Kernel | None:
    """Return the kernel in an entry, or None when there is none that can be used."""
    if not os.path.lexists(path):
        return None
    try:
        found = _kernel(path, spec)
        eviction.note_opened(path)
        return found
    except (BundleError, UnknownNameError) as error:
        _log.warning("the cached kernel %s cannot be used and is compiled again: %s", path, error)
        return None


def _lock(path: Path) -> BaseFileLock | None:
    """Return the acquired lock of an entry, or None where the cache cannot be written."""
    try:
        return writing.acquire(path.with_name(f".{path.name}.lock"), "compiling kernels")
    except OSError as error:
        _log.warning(
            "%s cannot be written (%s), so every process compiles anew: set %s to another folder",
            path.parent,
            error,
            cache.DIRECTORY_VARIABLE,
        )
        return None


def _replace(spec: ConvSpec, path: Path) -> Kernel:
    """Build an entry in place of what is there, if anything, and cannot be used."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return _build(spec, path)


def _build(spec: ConvSpec, path: Path) -> Kernel:
    from tvmconv.building import builder

    toolchain.require_compiler()  # without TVM no machine is known either, which would mislead
    _log.info("compiling %s for this machine, once", spec.key)
    # As local and as exact as the sum that TensorFlow defines: Winograd's algorithm is neither.
    builder.build(spec, "host", path, winograd=False)
    # An entry needs no 3 MB runtime of its own: TVM is installed here, in the version of the path.
    installed = toolchain.runtime_library()
    copy = next(path.glob("libtvm_runtime-*.so"))
    link = copy.with_suffix(".link")
    with contextlib.suppress(OSError):  # a file system without links keeps the copy
        link.symlink_to(installed)
        link.replace(copy)
    return _kernel(path, spec)


def _kernel(path: Path, spec: ConvSpec) -> Kernel:
    library: runtime.Library = runtime.load(path)
    return library[spec]
