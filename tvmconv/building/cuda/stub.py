"""Opens TVM's CUDA runtime in a process that only builds: with a stand-in where there is no driver.

``libtvm_runtime_cuda.so`` makes the module that holds device code, and is linked with the driver's library,
which only machines with a GPU have. The stand-in has the names that it asks for; each returns "no device".
A process that has the stand-in open runs kernels on its CPU as ever, and is told that it has no driver when
it asks for a GPU.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from tvmconv import writing
from tvmconv.building import cache, toolchain
from tvmconv.errors import INSTALL_COMPILER, MissingToolError
from tvmconv.hardware import cuda_driver, host

# nm -D --undefined-only libtvm_runtime_cuda.so, of TVM 0.27; and cuInit, so that who asks is told.
_NAMES = (
    "cuDeviceGetName", "cuFuncSetAttribute", "cuGetErrorName", "cuGetErrorString", "cuInit",
    "cuLaunchKernelEx", "cuModuleGetFunction", "cuModuleLoadData", "cuModuleUnload",
    "cuTensorMapEncodeTiled",
)  # fmt: skip
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_VERSION = 1  # of the file in the cache: raise it with what is in there


def open_cuda_runtime() -> None:
    """Make sure that TVM can hold CUDA device code in this process; tvm must be imported.

    Raises MissingToolError when a library is missing, BuildError when the stand-in cannot be linked.
    """
    import tvm_ffi

    if tvm_ffi.get_global_func("ffi.Module.create.cuda", allow_missing=True) is not None:
        return
    cuda_driver.open_cudart()
    if cuda_driver.driver() is None:
        ctypes.CDLL(str(_stub()), ctypes.RTLD_GLOBAL)
    path = toolchain.runtime_library("libtvm_runtime_cuda.so")
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        raise MissingToolError(
            f"{path} cannot be opened: {error}. To mend it: {INSTALL_COMPILER}"
        ) from error


def _stub() -> Path:
    """The stand-in for the driver's library, linked the first time."""
    folder = cache.directory() / "cuda" / f"stub-{_VERSION}-{host.architecture()}"
    path = folder / cuda_driver.DRIVER
    if path.is_file():
        return path
    toolchain.require(toolchain.check_linker())
    folder.mkdir(parents=True, exist_ok=True)
    functions = "".join(f"int {name}(void) {{ return {_NO_DEVICE}; }}\n" for name in _NAMES)
    mark = f"int {cuda_driver.STUB_MARK} = {_VERSION};\n"
    with writing.scratch("stub-", folder) as scratch:
        source, made = scratch / "stub.cc", scratch / "stub.so"
        source.write_text(f'extern "C" {{\n{mark}{functions}}}\n')
        command = [*(toolchain.linker() or ()), "-shared", "-fPIC"]
        toolchain.run_linker(
            [*command, f"-Wl,-soname,{cuda_driver.DRIVER}", "-o", str(made), str(source)]
        )
        made.replace(path)
    return path
