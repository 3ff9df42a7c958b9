"""Opens TVM's runtime and compiled kernels in this process."""

from __future__ import annotations

import ctypes
import importlib.util
import threading
import warnings
import weakref
from pathlib import Path
from typing import Any

from tvmconv import errors
from tvmconv.bundle.folder import File
from tvmconv.bundle.manifest import REBUILD
from tvmconv.runtime import abi, mapping, pools

_LOAD_CUDA = "ffi.Module.load_from_bytes.cuda"
_LOAD_KERNELS = "ffi.Module.load_from_file.so"
_FIND_FUNCTION = "ffi.ModuleGetFunction"

_BLOCK = 1 << 17  # bytes

_opening = threading.Lock()
# By SHA-256: those that are used somewhere, and those that stay.
_opened: weakref.WeakValueDictionary[str, KernelLibrary] = weakref.WeakValueDictionary()
_kept: set[KernelLibrary] = set()


def open_runtime(file: File, tvm_ffi_version: str) -> None:
    """Make sure that exactly one ``libtvm_runtime`` is loaded in this process.

    One that is loaded already, by ``import tvm`` or another bundle, is used as it is: a second copy
    would register TVM's global functions again, which fails. For the same reason the file of an
    installed TVM is preferred to the bundle's if it is the same: ``import tvm`` still works later.
    Raises BundleError when the library cannot be opened.
    """
    pools.set_environment()
    with _opening:
        if abi.find_function(pools.CONFIGURE) is None:
            _open_once(file, "libtvm_runtime", tvm_ffi_version)


def open_cuda_runtime(file: File, tvm_ffi_version: str) -> None:
    """Make sure that exactly one ``libtvm_runtime_cuda`` is loaded, as `open_runtime` does.

    After that one, the driver's library and CUDA's, which it is linked with.
    """
    with _opening:
        if abi.find_function(_LOAD_CUDA) is None:
            _open_once(file, "libtvm_runtime_cuda", tvm_ffi_version)


def _open_once(file: File, library: str, tvm_ffi_version: str) -> None:
    def open_globally(path: str) -> ctypes.CDLL:
        return ctypes.CDLL(path, ctypes.RTLD_GLOBAL)

    installed = _installed(f"{library}.so")
    same = installed is not None and _holds(installed, file.contents)
    if installed is not None and not same:
        warnings.warn(
            f"the installed tvm has another {library} than {file.path.parent}: importing tvm "
            "later in this process will abort it; import tvm before loading the bundle",
            RuntimeWarning,
            stacklevel=4,
        )
    try:
        if installed is not None and same:
            open_globally(str(installed.resolve()))
        else:
            mapping.open_copy(file, open_globally)
    except OSError as error:
        raise errors.BundleError(
            f"{file.path} cannot be opened: {error}. It was built with apache-tvm-ffi "
            f"{tvm_ffi_version}; run: pip install apache-tvm-ffi=={tvm_ffi_version}"
        ) from error


class KernelLibrary:
    """A kernel library that is mapped, until neither this nor any of its functions is left."""

    __slots__ = ("__weakref__", "_module")

    def __init__(self, module: abi.Object) -> None:
        self._module = module

    @property
    def module(self) -> Any:
        """The library as a ``tvm_ffi.Module``: imports that package."""
        return abi.lent(self._module)

    def function(self, symbol: str) -> abi.Function:
        """Return the compiled function ``symbol``; raises BundleError when the library lacks it."""
        return abi.Function(self._find(symbol))

    def lent_function(self, symbol: str) -> Any:
        """Return the same as a ``tvm_ffi.Function``."""
        return abi.lent(self._find(symbol))

    def _find(self, symbol: str) -> abi.Object:
        found: abi.Object | None = abi.required_function(_FIND_FUNCTION)(
            self._module, symbol, False
        )
        if found is None:
            raise errors.BundleError(
                f"the kernel library has no function {symbol}, which its manifest names; "
                f"make the bundle again: {REBUILD}"
            )
        return found


def open_kernels(file: File, keep: bool = False) -> KernelLibrary:
    """Open a kernel library; the runtime must be open before. Equal ones that are used are one.

    ``keep`` leaves it mapped for good. Raises BundleError when the library cannot be opened.
    """
    load_module = abi.required_function(_LOAD_KERNELS)
    with _opening:
        found = _opened.get(file.sha256)
        if found is None:
            try:
                module = mapping.open_copy(file, lambda path: load_module(path, ""))
            except (OSError, RuntimeError) as error:
                raise errors.BundleError(
                    f"{file.path} cannot be opened: {error}. Run: tvmconv doctor"
                ) from error
            found = _opened[file.sha256] = KernelLibrary(module)
        if keep:
            _kept.add(found)
        return found


def _holds(path: Path, contents: bytes) -> bool:
    """Whether a file has these contents; OSError when it cannot be read."""
    if path.stat().st_size != len(contents):
        return False
    # Block by block: a third of the time of fresh memory for the whole.
    with open(path, "rb") as file:
        starts = range(0, len(contents), _BLOCK)
        return all(file.read(_BLOCK) == contents[at : at + _BLOCK] for at in starts)


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
