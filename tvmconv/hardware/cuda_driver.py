"""NVIDIA's driver and CUDA's runtime library, found and opened in this process; standard library only.

Nothing here starts CUDA on a device: asking the driver what there is makes no context and takes no memory.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from tvmconv.errors import MissingToolError

DRIVER = "libcuda.so.1"
CUDART = "libcudart.so.13"  # what libtvm_runtime_cuda.so is linked with
# A symbol of the stand-in that `tvmconv.building.cuda.stub` opens under the driver's name in order to build.
STUB_MARK = "tvmconv_stub_of_libcuda"
INSTALL_RUNTIME = "pip install 'tvmconv[cuda]'"

_CAPABILITY_MAJOR, _CAPABILITY_MINOR, _MULTIPROCESSORS = 75, 76, 16  # CUdevice_attribute
_OWN_RELEASE = "/sys/module/nvidia/version"
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


def capability(arch: str) -> tuple[int, int]:
    """(9, 0) for ``sm_90``."""
    digits = arch.removeprefix("sm_")
    return int(digits[:-1]), int(digits[-1])


@dataclass(frozen=True)
class Device:
    """A GPU as the driver describes it; ``memory`` in bytes."""

    index: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory: int

    @property
    def arch(self) -> str:
        """As compilers spell the compute capability: ``sm_90``."""
        major, minor = self.capability
        return f"sm_{major}{minor}"

    def __str__(self) -> str:
        return f"cuda:{self.index}: {self.name}, {self.arch}, {self.memory / 2**30:.0f} GiB"


def driver() -> ctypes.CDLL | None:
    """Open the NVIDIA driver's library; None where there is no driver."""
    try:
        library = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    return None if hasattr(library, STUB_MARK) else library


def driver_release(library: ctypes.CDLL) -> tuple[int, int]:
    """The newest CUDA that a driver knows: (13, 0)."""
    number = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    return number.value // 1000, number.value % 1000 // 10


def driver_name(library: ctypes.CDLL) -> str:
    """The driver's own release and the newest CUDA that it knows: ``driver 580.65.06, CUDA 13.0``."""
    release = ".".join(map(str, driver_release(library)))
    try:
        own = Path(_OWN_RELEASE).read_text().strip()
    except OSError:  # not on every Jetson
        own = "of unknown release"
    return f"driver {own}, CUDA {release}"


def uuid_of(library: ctypes.CDLL, index: int) -> str | None:
    """What tells a GPU, or a part of one, from all others in every process; None from a driver without it."""
    handle, made = ctypes.c_int(), ctypes.create_string_buffer(16)
    if not hasattr(library, "cuDeviceGetUuid_v2"):
        return None
    _check(library, "cuDeviceGet", library.cuDeviceGet(ctypes.byref(handle), index))
    status = library.cuDeviceGetUuid_v2(made, handle)
    return str(uuid.UUID(bytes=made.raw)) if status == 0 else None


def devices() -> list[Device]:
    """The GPUs that this process may use, in CUDA's order; none without a driver.

    Raises MissingToolError where there is a driver that does not work.
    """
    library = driver()
    if library is None:
        return []
    status = library.cuInit(0)
    if status == _NO_DEVICE:
        return []
    if status != 0:
        raise MissingToolError(
            f"the NVIDIA driver does not start: cuInit gives {_error_name(library, status)}. "
            "`nvidia-smi` tells more; restart the machine, or install the driver again."
        )
    count = ctypes.c_int()
    _check(library, "cuDeviceGetCount", library.cuDeviceGetCount(ctypes.byref(count)))
    return [_device(library, index) for index in range(count.value)]


def _device(library: ctypes.CDLL, index: int) -> Device:
    handle = ctypes.c_int()
    _check(library, "cuDeviceGet", library.cuDeviceGet(ctypes.byref(handle), index))
    name = ctypes.create_string_buffer(256)
    _check(library, "cuDeviceGetName", library.cuDeviceGetName(name, len(name), handle))
    memory = ctypes.c_size_t()
    _check(library, "cuDeviceTotalMem", library.cuDeviceTotalMem_v2(ctypes.byref(memory), handle))

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        status = library.cuDeviceGetAttribute(ctypes.byref(value), number, handle)
        _check(library, "cuDeviceGetAttribute", status)
        return value.value

    return Device(
        index,
        name.value.decode(),
        (attribute(_CAPABILITY_MAJOR), attribute(_CAPABILITY_MINOR)),
        attribute(_MULTIPROCESSORS),
        memory.value,
    )


def _check(library: ctypes.CDLL, call: str, status: int) -> None:
    if status != 0:
        raise MissingToolError(
            f"the NVIDIA driver fails: {call} gives {_error_name(library, status)}. "
            "`nvidia-smi` tells more."
        )


def _error_name(library: ctypes.CDLL, status: int) -> str:
    name = ctypes.c_char_p()
    library.cuGetErrorName(status, ctypes.byref(name))
    return name.value.decode() if name.value else f"error {status}"


def package_folders(folder: str) -> list[Path]:
    """Folders of that name in the pip packages of CUDA 13: ``lib``, ``bin``, ``include``."""
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        return []
    locations = list(spec.submodule_search_locations or ()) if spec else []
    found = [Path(location) / "cu13" / folder for location in locations]
    return [path for path in found if path.is_dir()]


def toolkit_folders(folder: str) -> list[Path]:
    """Folders of that name in installed CUDA toolkits: ``$CUDA_HOME``, then the usual place."""
    roots = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    found = [Path(root) / folder for root in roots if root]
    return [path for path in dict.fromkeys(found) if path.is_dir()]


def cudart_path() -> Path | None:
    """The file of CUDA's runtime library in a pip package or a toolkit."""
    folders = [*package_folders("lib"), *toolkit_folders("lib64"), *toolkit_folders("lib")]
    return next((path / CUDART for path in folders if (path / CUDART).is_file()), None)


def open_cudart() -> ctypes.CDLL:
    """Open CUDA's runtime library for all that this process opens later.

    The one that is open already or that the system finds, else that of a pip package or toolkit. Raises
    MissingToolError without any.
    """
    try:
        return ctypes.CDLL(CUDART, ctypes.RTLD_GLOBAL)
    except OSError:
        path = cudart_path()
    if path is None:
        raise MissingToolError(
            f"CUDA's runtime library, {CUDART}, is neither on the library path nor in a pip package nor in "
            f"$CUDA_HOME or /usr/local/cuda. To mend it: {INSTALL_RUNTIME}"
        )
    try:
        return ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise MissingToolError(
            f"{path} cannot be opened: {error}. To mend it: {INSTALL_RUNTIME}"
        ) from error
