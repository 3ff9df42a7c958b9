"""Compiles CUDA C++ through NVRTC, a library in a pip package: for machines without nvcc or C++ compiler.

Called by ctypes; its interface is in NVIDIA's documentation of NVRTC and nvFatbin.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmconv.building import toolchain
from tvmconv.building.cuda import tools as cuda_tools
from tvmconv.errors import BuildError

# Types that nvcc knows from the C library, whose headers NVRTC does not read.
_TYPES = """#include <cuda/std/cstdint>
#include <cuda/std/limits>
using cuda::std::uint8_t;
using cuda::std::uint16_t;
using cuda::std::uint32_t;
using cuda::std::uint64_t;
using cuda::std::int8_t;
using cuda::std::int16_t;
using cuda::std::int32_t;
using cuda::std::int64_t;
#ifndef INFINITY
#define INFINITY (::cuda::std::numeric_limits<float>::infinity())
#endif
"""


@dataclass(frozen=True)
class Output:
    """What NVRTC made, as a fatbin, and its log."""

    image: bytes
    log: str


def available() -> bool:
    """Whether the libraries and CUDA's headers are there."""
    return cuda_tools.has_nvrtc()


def compile_source(source: str, arch: str) -> Output:
    """Compile device code for one architecture, like ``sm_90``; raises BuildError with the log."""
    path, binder = cuda_tools.library(cuda_tools.NVRTC), cuda_tools.library(cuda_tools.NVFATBIN)
    if path is None or binder is None:
        toolchain.require(cuda_tools.check_compiler())
        raise AssertionError("require raises")
    # NVRTC asks for its built-in functions by file name alone: they must be open already.
    for builtins in path.parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(str(path))
    program = ctypes.c_void_p()
    text = (_TYPES + "\n".join(_device_only(source))).encode()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 0, None, None)
    try:
        options = _options(arch)
        status = nvrtc.nvrtcCompileProgram(
            program, len(options), (ctypes.c_char_p * len(options))(*options)
        )
        log = _text(nvrtc, program, "ProgramLog")
        if status != 0:
            raise BuildError(log)
        cubin, ptx = _text_bytes(nvrtc, program, "CUBIN"), _text_bytes(nvrtc, program, "PTX")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return Output(_fatbin(binder, cubin, ptx, arch.removeprefix("sm_").encode()), log)


def _device_only(source: str) -> list[str]:
    return [line for line in source.splitlines() if line.strip() != "#include <cuda.h>"]


def _options(arch: str) -> list[bytes]:
    options = [f"--gpu-architecture={arch}", "--std=c++17", "-default-device", "--device-int128"]
    options += ["--ptxas-options=-v", *(f"-I{path}" for path in cuda_tools.headers())]
    return [option.encode() for option in options]


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> str:
    return _text_bytes(nvrtc, program, what).rstrip(b"\0").decode(errors="replace")


def _text_bytes(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


def _fatbin(path: Path, cubin: bytes, ptx: bytes, capability: bytes) -> bytes:
    """Both in one image, so that a newer card than the cubin's can run the PTX."""
    fatbin = ctypes.CDLL(str(path))
    handle = ctypes.c_void_p()

    def call(name: str, *arguments: Any) -> None:
        function: Callable[..., int] = getattr(fatbin, name)
        status = function(*arguments)
        if status != 0:
            raise BuildError(f"{name} of {path} gives {status}: {cuda_tools.INSTALL} again")

    options = (ctypes.c_char_p * 1)(b"-64")
    call("nvFatbinCreate", ctypes.byref(handle), options, ctypes.c_size_t(1))
    try:
        cubin_size, ptx_size = ctypes.c_size_t(len(cubin)), ctypes.c_size_t(len(ptx))
        call("nvFatbinAddCubin", handle, cubin, cubin_size, capability, b"kernels.cubin")
        call("nvFatbinAddPTX", handle, ptx, ptx_size, capability, b"kernels.ptx", None)
        size = ctypes.c_size_t()
        call("nvFatbinSize", handle, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        call("nvFatbinGet", handle, buffer)
    finally:
        fatbin.nvFatbinDestroy(ctypes.byref(handle))
    return buffer.raw
