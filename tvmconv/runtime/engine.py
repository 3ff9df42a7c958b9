"""Opens TVM's runtime and compiled kernels in this process."""

from __future__ import annotations

import ctypes
import importlib.util
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tvm_ffi

from tvmconv import errors
from tvmconv.bundle import manifest
from tvmconv.runtime import pools

_LOAD_CUDA = "ffi.Module.load_from_bytes.cuda"

_opening = threading.Lock()
_opened: dict[str, list[str]] = {}


def open_runtime(directory: Path, entry: manifest.RuntimeEntry, tvm_ffi_version: str) -> None:
    """Make sure that exactly one ``libtvm_runtime`` is loaded in this process.

    One that is loaded already, by ``import tvm`` or another bundle, is used as it is: a second copy
    would register TVM's global functions again, which fails. For the same reason the file of an
    installed TVM is preferred to the bundle's if it is the same: ``import tvm`` still works later.
    Raises BundleError when the library cannot be opened.
    """
    pools.set_environment()
    with _opening:
        if tvm_ffi.get_global_func(pools.CONFIGURE, allow_missing=True) is not None:
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
