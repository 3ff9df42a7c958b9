"""Memory of GPUs as tensors of TVM's, taken from CUDA here and given back here.

TVM's own tensors end the process when CUDA refuses to free them, as it refuses everything after an illegal
address, and in a thread that captures a CUDA graph: an error in their destructor ends the process.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import tvm_ffi

from tvmconv.runtime import arrays

_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    """DLPack's DLManagedTensor."""

    _fields_ = (
        ("tensor", arrays.DLTensor),
        ("context", ctypes.c_void_p),
        ("deleter", _Deleter),
    )


# By address, until nobody uses the tensor any more; and CUDA's runtime library for each.
_alive: dict[int, tuple[_Managed, ctypes.CDLL]] = {}


def _release(
    address: int,
    alive: dict[int, tuple[_Managed, ctypes.CDLL]] = _alive,
    finalizing: Callable[[], bool] = sys.is_finalizing,
) -> None:
    # Its names are arguments because at the process's end a module's are gone.
    managed, cudart = alive.pop(address)
    if not finalizing():  # which gives everything back
        # A capture in this thread would forbid it, and be spoilt.
        mode = ctypes.c_int(2)  # cudaStreamCaptureModeRelaxed
        cudart.cudaThreadExchangeStreamCaptureMode(ctypes.byref(mode))
        cudart.cudaFree(ctypes.c_void_p(managed.tensor.data))
        cudart.cudaThreadExchangeStreamCaptureMode(ctypes.byref(mode))


_deleter = _Deleter(_release)
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_deleter))  # tensors may outlive this module


def tensor(cudart: ctypes.CDLL, struct: arrays.DLTensor) -> Any:
    """Return a ``tvm_ffi.Tensor`` for memory of ``cudaMalloc`` that it owns from now on."""
    managed = _Managed(struct, None, _deleter)
    managed.extents = struct.extents  # shape points into it
    address = ctypes.addressof(managed)
    _alive[address] = managed, cudart
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return tvm_ffi.from_dlpack(new(address, b"dltensor", None))
