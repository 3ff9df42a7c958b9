"""Times compiled functions in C, without Python in the loop; works with the runtime alone."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import tvm_ffi

_EVALUATOR = "runtime.RPCTimeEvaluator"
_CPU = 1  # DLPack's kDLCPU
_FLUSH = "cache_flush_cpu_non_first_arg"  # libtvm_runtime's: every argument but the first
_DLTENSOR_BYTES = 48
_LOOK_SECONDS = 50e-6  # two thousand times the grain of the clock


def seconds(
    module: Any,
    symbol: str,
    pointers: tuple[Any, ...],
    repeats: int = 3,
    least_ms: float = 3.0,
    calls: int = 1,
) -> list[float]:
    """Return the mean time of one call, in seconds, of each of ``repeats`` runs.

    Each run makes ``calls`` calls and, unless ``least_ms`` is 0, as many more as fill that many
    milliseconds; the first call of all, which warms caches and pages, is not counted. ``pointers`` are
    the function's arguments.
    """
    least = int(max(least_ms, 1)) if least_ms else 0
    return _evaluate(module, symbol, pointers, calls, repeats, least, "")


def fastest(module: Any, symbol: str, pointers: tuple[Any, ...], total_ms: float) -> float:
    """Return the fastest of as many looks at a call as fit ``total_ms``, at least three, in seconds a call.

    A look is short beside the time slices of other processes (4 ms on Linux), and as long as it takes for
    the clock's grain not to count: where the core is shared, one of them is undisturbed.
    """
    (once,) = _evaluate(module, symbol, pointers, 1, 1, 0, "")
    calls = max(1, int(_LOOK_SECONDS / max(once, 1e-7)))
    looks = max(3, int(total_ms / 1e3 / max(calls * once, _LOOK_SECONDS / 2)))
    return min(_evaluate(module, symbol, pointers, calls, looks, 0, ""))


def cold_seconds(
    module: Any, symbol: str, pointers: tuple[Any, ...], repeats: int = 15
) -> list[float]:
    """Return the times of single calls, in seconds, each with all arguments but the first flushed.

    As in a network, where a layer finds its data in the cache, left there by the layer before, but its
    filter and the memory of its output were last touched an inference ago.
    """
    lent = [_Lent(pointer) for pointer in pointers]  # outlive the tensors, whose memory they are
    tensors = tuple(tvm_ffi.from_dlpack(each) for each in lent)
    return _evaluate(module, symbol, tensors, 1, repeats, 0, _FLUSH)


class _Managed(ctypes.Structure):
    """DLPack's DLManagedTensor without a deleter: somebody else owns the memory."""

    _fields_ = (
        ("tensor", ctypes.c_byte * _DLTENSOR_BYTES),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


_new_capsule = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
)(("PyCapsule_New", ctypes.pythonapi))


class _Lent:
    """A kernel's argument as a tensor: the flush does not know opaque pointers to DLTensor structs."""

    def __init__(self, pointer: ctypes.c_void_p) -> None:
        struct_bytes = ctypes.string_at(pointer.value or 0, _DLTENSOR_BYTES)
        self._managed = _Managed.from_buffer_copy(
            struct_bytes.ljust(ctypes.sizeof(_Managed), b"\0")
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        return (_CPU, 0)

    def __dlpack__(self, **_options: Any) -> Any:
        return _new_capsule(ctypes.addressof(self._managed), b"dltensor", None)


def _evaluate(
    module: Any,
    symbol: str,
    pointers: tuple[Any, ...],
    calls: int,
    repeats: int,
    least: int,
    before: str,
) -> list[float]:
    evaluator = tvm_ffi.get_global_func(_EVALUATOR)(
        module, symbol, _CPU, 0, calls, repeats, least, 100, 0, 1, 0, before
    )
    return list(struct.unpack(f"@{repeats}d", bytes(evaluator(*pointers))))
