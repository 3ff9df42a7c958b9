"""One GPU in this process: memory, streams and launches, through TVM's runtime and CUDA's own library."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm_ffi

from tvmconv import errors
from tvmconv.hardware import cuda_driver
from tvmconv.runtime import arrays, tensors
from tvmconv.runtime.cuda import memory

CUDA = 2  # DLPack's device type
_CODES = {"int": 0, "uint": 1, "float": 2, "bfloat": 4}  # DLPack's type codes
_DEVICE_TO_DEVICE, _NOT_CAPTURING = 3, 0
_CAPTURE_IMPLICIT = 906  # cudaErrorStreamCaptureImplicit
_handle, _pointer, _int = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int


def bits(dtype: str) -> int:
    """Bits of an element: 16 for ``bfloat16``."""
    return int(dtype.lstrip("abcdefghijklmnopqrstuvwxyz"))


def size(shape: tuple[int, ...], dtype: str) -> int:
    """Bytes of an array."""
    return math.prod(shape) * bits(dtype) // 8


class Gpu:
    """Where the kernels of a `GpuLibrary` run. `tvmconv.runtime.cuda` makes it.

    Attributes:
        device: as the driver describes it.

    """

    device_type = CUDA

    def __init__(self, device: cuda_driver.Device, devices: int) -> None:
        self.device = device
        self._place = tvm_ffi.device(f"cuda:{device.index}")
        self._find_functions()
        # A handle of our own: setting types on it changes nothing for others.
        self._cudart = cuda_driver.open_cudart()
        self._cudart.cudaStreamIsCapturing.argtypes = (_handle, _pointer)
        self._cudart.cudaStreamSynchronize.argtypes = (_handle,)
        self._cudart.cudaMemcpyAsync.argtypes = (_pointer, _pointer, ctypes.c_size_t, _int, _handle)
        self._cudart.cudaMemsetAsync.argtypes = (_pointer, _int, ctypes.c_size_t, _handle)
        self._cudart.cudaGetErrorString.restype = ctypes.c_char_p
        self._several = devices > 1

    def _find_functions(self) -> None:
        """Of TVM's runtime, which waits for the default stream when it copies to or from main memory."""
        self._from_bytes = tvm_ffi.get_global_func("runtime.TVMTensorCopyFromBytes")
        self._to_bytes = tvm_ffi.get_global_func("runtime.TVMTensorCopyToBytes")

    @property
    def index(self) -> int:
        """The number of the device: 1 for ``cuda:1``."""
        return self.device.index

    def __repr__(self) -> str:
        return f"Gpu({self.device})"

    def tensor(self, shape: tuple[int, ...], dtype: str, address: int = 0) -> arrays.DLTensor:
        """Return a struct for a C-contiguous array in the GPU's memory at ``address``."""
        extents = (ctypes.c_int64 * len(shape))(*shape)
        code = _CODES[dtype.rstrip("0123456789")]
        struct = arrays.DLTensor(
            address,
            self.device_type,
            self.index,
            len(shape),
            code,
            bits(dtype),
            1,
            ctypes.addressof(extents),
            None,
            0,
        )
        struct.extents = extents  # shape points into it
        return struct

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Allocate a ``tvm_ffi.Tensor``, aligned to 256 bytes; DeviceError where memory is short."""
        before, count, address = self._current(), size(shape, dtype), ctypes.c_void_p()
        try:
            self.call("cudaSetDevice", self.index)
            room = ctypes.byref(address)
            status = self.attempt("cudaMalloc", room, ctypes.c_size_t(count)) if count else 0
        finally:
            self._return_to(before)
        if status != 0:
            self.attempt("cudaGetLastError")  # so that nobody else takes it for theirs
            raise errors.DeviceError(
                f"{count} bytes cannot be allocated on {self.device}: {self._text(status)}. "
                "`nvidia-smi` tells what else uses its memory"
            )
        struct = self.tensor(shape, dtype, address.value or 0)
        return memory.tensor(self._cudart, struct)

    def upload(self, array: arrays.Array) -> Any:
        """Return a ``tvm_ffi.Tensor`` with the values of an array, once they are there."""
        made = self.empty(array.shape, array.dtype.name)
        source = np.ascontiguousarray(array)
        if source.nbytes:
            self._transfer(self._from_bytes, made, source)
        return made

    def download(self, tensor: Any) -> arrays.Array:
        """Return the values of a ``tvm_ffi.Tensor`` as a new array, once all work on it is done."""
        shape, dtype = tuple(tensor.shape), str(tensor.dtype)
        array = arrays.empty_aligned(shape, tensors.numpy_dtype(dtype))
        if array.nbytes:
            self._transfer(self._to_bytes, tensor, array)
        return array

    def _transfer(self, function: Callable[..., Any], tensor: Any, array: arrays.Array) -> None:
        before = self._current()
        try:
            function(tensor, ctypes.c_void_p(arrays.data_address(array)), array.nbytes)
        except RuntimeError as error:
            raise errors.DeviceError(
                f"values cannot be copied to or from {self.device}: {_reason(error)}"
            ) from error
        finally:
            self._return_to(before)

    def copy(self, target: int, source: int, count: int, stream: int) -> None:
        """Copy bytes from one address of the GPU to another, in the order of the stream."""
        self.call("cudaMemcpyAsync", target, source, count, _DEVICE_TO_DEVICE, stream)

    def fill(self, target: int, byte: int, count: int, stream: int) -> None:
        """Set bytes from an address of the GPU on to one value, in the order of the stream."""
        self.call("cudaMemsetAsync", target, byte, count, stream)

    def synchronize(self, stream: int) -> None:
        """Wait for everything that was put into the stream."""
        self.call("cudaStreamSynchronize", stream)

    def is_capturing(self, stream: int) -> bool:
        """Whether what is put into the stream becomes part of a CUDA graph, and does not run now."""
        state = ctypes.c_int()
        status = self.attempt("cudaStreamIsCapturing", stream, ctypes.byref(state))
        if status == _CAPTURE_IMPLICIT:  # the default stream, while another one captures
            self.attempt("cudaGetLastError")
            return True
        self._require("cudaStreamIsCapturing", status)
        return state.value != _NOT_CAPTURING

    def launch(
        self, function: Callable[..., Any], pointers: tuple[ctypes.c_void_p, ...], stream: int
    ) -> None:
        """Call a compiled function; its kernels go into the stream. DeviceError where CUDA refuses."""
        before = self._current()
        try:
            with tvm_ffi.use_raw_stream(self._place, stream):
                function(*pointers)
        except RuntimeError as error:
            raise errors.DeviceError(
                f"a kernel cannot be launched on {self.device}: {_reason(error)}"
            ) from error
        finally:
            self._return_to(before)

    def _current(self) -> int:
        """The thread's current device, which TVM changes to its own; only asked where there are several."""
        number = ctypes.c_int(self.index)
        if self._several:
            self._cudart.cudaGetDevice(ctypes.byref(number))
        return number.value

    def _return_to(self, before: int) -> None:
        if before != self.index:
            self._cudart.cudaSetDevice(before)

    def attempt(self, name: str, *arguments: Any) -> int:
        """Call a function of CUDA's runtime library and return its status, 0 where it succeeds."""
        return int(getattr(self._cudart, name)(*arguments))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of CUDA's runtime library; DeviceError where it returns an error."""
        self._require(name, self.attempt(name, *arguments))

    def _require(self, name: str, status: int) -> None:
        if status != 0:
            raise errors.DeviceError(f"{name} fails on {self.device}: {self._text(status)}")

    def _text(self, status: int) -> str:
        return str(self._cudart.cudaGetErrorString(status).decode(errors="replace"))


def _reason(error: RuntimeError) -> str:
    """The first line that says something; TVM's messages end with a stack of calls."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
