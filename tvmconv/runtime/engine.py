"""Opens TVM's runtime and compiled kernels in this process, and sets the threads that calls use.

TVM keeps one pool of worker threads per calling thread, so every setting here is per Python thread.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tvm_ffi

from tvmconv import errors
from tvmconv.bundle import manifest

# TVM's ThreadGroup::kSpecifyThreadShareAllCore: the mode that uses as many threads as it is told
# also on CPUs with big and little cores, where others count only the cores of one kind.
_SHARE_ALL_CORES = -3
_CONFIGURE = "runtime.config_threadpool"
_LOAD_CUDA = "ffi.Module.load_from_bytes.cuda"
_SET_SERIAL = "_ZN3tvm7runtime9threading17SetMaxConcurrencyEi"  # SetMaxConcurrency(int)

_opening = threading.Lock()
_opened: dict[str, list[str]] = {}


class _PerThread(threading.local):
    """What TVM was last told in this Python thread; 0 threads where it was not told anything."""

    threads = 0
    has_pool = False
    lost_pool = False


current = _PerThread()


def open_runtime(directory: Path, entry: manifest.RuntimeEntry, tvm_ffi_version: str) -> None:
    """Make sure that exactly one ``libtvm_runtime`` is loaded in this process.

    One that is loaded already, by ``import tvm`` or another bundle, is used as it is: a second copy
    would register TVM's global functions again, which fails. For the same reason the file of an
    installed TVM is preferred to the bundle's if it is the same: ``import tvm`` still works later.
    Raises BundleError when the library cannot be opened.
    """
    # TVM pins the calling thread to some cores when it starts its pool, and with it all that the
    # process does next in that thread. A user who wants that sets the variable.
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    with _opening:
        if tvm_ffi.get_global_func(_CONFIGURE, allow_missing=True) is not None:
            return
        _open_once(directory, entry, "libtvm_runtime", tvm_ffi_version)


def open_cuda_runtime(directory: Path, entry: manifest.RuntimeEntry, tvm_ffi_version: str) -> None:
    """Make sure that exactly one ``libtvm_runtime_cuda`` is loaded, as `open_runtime` does.

    After that one, the driver's library and CUDA's, which it is linked with.
    """
    with _opening:
        if tvm_ffi.get_global_func(_LOAD_CUDA, allow_missing=True) is None:
            _open_once(directory, entry, "libtvm_runtime_cuda", tvm_ffi_version)


def _open_once(
    directory: Path, entry: manifest.RuntimeEntry, library: str, tvm_ffi_version: str
) -> None:
    path = directory / entry.file
    installed = _installed(f"{library}.so")
    if installed is not None:
        if manifest.file_digest(installed) == entry.sha256:
            path = installed
        else:
            warnings.warn(
                f"the installed tvm has another {library} than {directory}: importing tvm "
                "later in this process will abort it; import tvm before loading the bundle",
                RuntimeWarning,
                stacklevel=4,
            )
    try:
        ctypes.CDLL(str(path.resolve()), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise errors.BundleError(
            f"{path} cannot be opened: {error}. It was built with apache-tvm-ffi "
            f"{tvm_ffi_version}; run: pip install apache-tvm-ffi=={tvm_ffi_version}"
        ) from error


def open_kernels(path: Path, digest: str) -> Any:
    """Open a kernel library and return its ``tvm_ffi.Module``; the runtime must be open before.

    ``digest`` is the file's SHA-256. Raises BundleError when the library cannot be opened.
    """
    location = path.resolve()
    with _opening:
        # The dynamic linker returns the library it has when it sees a path again, even if the file
        # was replaced by a new build: each content gets a spelling of the path of its own.
        digests = _opened.setdefault(str(location), [])
        if digest not in digests:
            digests.append(digest)
        spelling = f"{location.parent}{'/.' * digests.index(digest)}/{location.name}"
        try:
            return tvm_ffi.load_module(spelling)
        except (OSError, RuntimeError) as error:
            raise errors.BundleError(
                f"{path} cannot be opened: {error}. Run: tvmconv doctor"
            ) from error


def function(module: Any, symbol: str) -> Callable[..., Any]:
    """Return the compiled function ``symbol``; raises BundleError when the library lacks it.

    Calls release Python's global lock and may be made from several threads at once.
    """
    try:
        return module[symbol]  # type: ignore[no-any-return]
    except (AttributeError, KeyError, RuntimeError) as error:
        raise errors.BundleError(
            f"the kernel library has no function {symbol}, which its manifest names; "
            "make the bundle again: tvmconv build WORKLOAD --machine host --output PATH"
        ) from error


def use_threads(count: int) -> None:
    """Let kernels that this Python thread calls from now on run on ``count`` threads.

    With 1, kernels run in the calling thread and no pool is started. The first larger count sizes
    this Python thread's pool for good; a later, larger one runs with that many.
    """
    if count == 1 or current.lost_pool:
        # Not through config_threadpool: that creates the pool, which would then stay at one thread
        # for good.
        _set_max_concurrency(1)
    else:
        cores = sorted(os.sched_getaffinity(0))
        cpus = [str(cores[index % len(cores)]) for index in range(count)]
        tvm_ffi.get_global_func(_CONFIGURE)(_SHARE_ALL_CORES, count, cpus)
        current.has_pool = True
    current.threads = count


def _set_max_concurrency(count: int) -> None:
    try:
        set_max_concurrency = ctypes.CFUNCTYPE(None, ctypes.c_int)((_SET_SERIAL, ctypes.CDLL(None)))
    except AttributeError as error:
        raise errors.BundleError(
            "the libtvm_runtime loaded in this process is not the one this package works with; "
            "load the bundle in a process that has not imported another version of tvm"
        ) from error
    set_max_concurrency(count)


def _installed(library: str) -> Path | None:
    """Find a runtime library of an installed TVM without importing it."""
    try:
        spec = importlib.util.find_spec("tvm")
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "lib" / library
    return path if path.is_file() else None


def _after_fork() -> None:
    """Remember, in a forked child, that the pool's threads stayed behind in the parent.

    A parallel kernel would wait for them forever; in this one thread of the child kernels run
    serially from now on. Threads that the child starts get pools of their own.
    """
    current.threads = 0
    current.lost_pool = current.has_pool


os.register_at_fork(after_in_child=_after_fork)
