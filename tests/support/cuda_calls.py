"""CUDA's two libraries by ctypes, for processes that have the emulated driver; calls give their status."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

runtime = ctypes.CDLL("libcudart.so.13")
driver = ctypes.CDLL("libcuda.so.1")

OK, INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED = 0, 1, 2, 3
INVALID_IMAGE, INVALID_CONTEXT, NO_BINARY = 200, 201, 209
INVALID_HANDLE, ILLEGAL_STATE, NOT_FOUND, NOT_READY = 400, 401, 500, 600
ILLEGAL_ADDRESS, TIMEOUT, MISALIGNED, LAUNCH_FAILED = 700, 702, 716, 719
UNSUPPORTED, INVALIDATED, MERGE, UNMATCHED, UNJOINED, ISOLATION, IMPLICIT = range(900, 907)
CAPTURED_EVENT, WRONG_THREAD = 907, 908
GLOBAL, THREAD_LOCAL, RELAXED = 0, 1, 2
NON_BLOCKING = 1
TO_DEVICE, TO_HOST, ON_DEVICE = 1, 2, 3
LEGACY = ctypes.c_void_p(0)

IMAGES = Path(os.environ["EMULATED_IMAGES"])
IMAGE = IMAGES.joinpath("sm_90").read_bytes()
WORDS = 4  # bytes of an element
SIZE = 32 * WORDS
FRESH, SEVENS = b"\xff" * SIZE, b"\x07\x00\x00\x00" * 32


class Config(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("count", ctypes.c_uint),
    )


def need(status: int) -> None:
    """Fail unless a call succeeded."""
    assert status == OK, status


def made(function: Any, *arguments: Any) -> ctypes.c_void_p:
    """What a function that makes something gives through its first argument."""
    handle = ctypes.c_void_p()
    need(function(ctypes.byref(handle), *arguments))
    return handle


def malloc(count: int) -> ctypes.c_void_p:
    """Memory of the device, in bytes."""
    return made(runtime.cudaMalloc, ctypes.c_size_t(count))


def stream(flags: int = NON_BLOCKING) -> ctypes.c_void_p:
    """A new stream."""
    return made(runtime.cudaStreamCreateWithFlags, flags)


def fill(at: ctypes.c_void_p, value: int, count: int, where: ctypes.c_void_p = LEGACY) -> int:
    """Set bytes in a stream."""
    return int(runtime.cudaMemsetAsync(at, value, ctypes.c_size_t(count), where))


def copy(to: Any, source: Any, count: int, kind: int, where: ctypes.c_void_p = LEGACY) -> int:
    """Copy bytes in a stream."""
    return int(runtime.cudaMemcpyAsync(to, source, ctypes.c_size_t(count), kind, where))


def read(at: ctypes.c_void_p, count: int, where: ctypes.c_void_p = LEGACY) -> bytes:
    """Bytes of the device, as they are after what is in the stream."""
    held = ctypes.create_string_buffer(count)
    need(copy(held, at, count, TO_HOST, where))
    return held.raw


def module(arch: str = "sm_90") -> ctypes.c_void_p:
    """The kernels of test_emulated_driver.py for an architecture."""
    image = Path(os.environ["EMULATED_IMAGES"], arch).read_bytes()
    return made(driver.cuModuleLoadData, image)


def kernel(name: str, arch: str = "sm_90") -> ctypes.c_void_p:
    """One of those kernels."""
    return made(driver.cuModuleGetFunction, module(arch), name.encode())


def launch(
    function: ctypes.c_void_p,
    *pointers: ctypes.c_void_p,
    grid: tuple[int, int, int] = (1, 1, 1),
    block: tuple[int, int, int] = (32, 1, 1),
    shared: int = 0,
    where: ctypes.c_void_p = LEGACY,
) -> int:
    """Put a kernel into a stream."""
    config = Config((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), shared, where)
    values = (ctypes.c_void_p * len(pointers))(*map(ctypes.addressof, pointers))
    return int(driver.cuLaunchKernelEx(ctypes.byref(config), function, values, None))


def start() -> None:
    """Make the first device this thread's."""
    need(runtime.cudaSetDevice(0))


def sync(where: ctypes.c_void_p = LEGACY) -> int:
    """Wait for a stream."""
    return int(runtime.cudaStreamSynchronize(where))
