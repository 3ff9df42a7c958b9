"""Tensors of other frameworks, to and from NumPy without a copy, through DLPack.

No framework is imported here: a tensor's framework is in ``sys.modules`` already.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmconv import errors

if TYPE_CHECKING:
    import numpy.typing as npt

# DLPack's device types whose memory the CPU reads: main memory, and memory pinned for CUDA.
_CPU_DEVICES = (1, 3)
FRAMEWORKS = {"torch": "torch", "jax": "jax", "jaxlib": "jax", "tensorflow": "tensorflow"}


def framework(value: object) -> str | None:
    """Name the framework that ``value`` belongs to: torch, jax, tensorflow, or None."""
    return FRAMEWORKS.get(type(value).__module__.partition(".")[0])


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return NumPy's dtype of that name; MissingToolError for bfloat16 without ml_dtypes."""
    dtype: np.dtype[Any]
    if name != "bfloat16":
        dtype = np.dtype(name)
        return dtype
    try:
        import ml_dtypes
    except ImportError as error:
        raise errors.MissingToolError(
            "bfloat16 arrays need a package that is not installed; run: pip install ml_dtypes"
        ) from error
    dtype = np.dtype(ml_dtypes.bfloat16)
    return dtype


def as_array(value: object, name: str) -> npt.NDArray[Any]:
    """Return a NumPy array on the memory of an array or CPU tensor.

    Raises TypeError for anything else, and for an element type that NumPy does not have; ValueError
    for memory of another device, and for a torch tensor that requires a gradient.
    """
    if isinstance(value, np.ndarray):
        if type(value).__module__.startswith("numpy.ma"):
            raise TypeError(f"{name} is a masked array, whose mask a kernel would ignore: fill it")
        return value if type(value) is np.ndarray else np.asarray(value)
    if not hasattr(value, "__dlpack__") or not hasattr(value, "__dlpack_device__"):
        raise TypeError(
            f"{name} must be a NumPy array or a tensor with DLPack, {type(value).__name__} was "
            "given: pass e.g. numpy.asarray(...)"
        )
    if framework(value) == "torch":
        # Half the time of DLPack, and the one exporter that refuses a lazily negated view, whose
        # memory holds other values than the tensor. What it refuses gets its message below.
        with contextlib.suppress(RuntimeError, TypeError):
            array: npt.NDArray[Any] = value.numpy()  # type: ignore[attr-defined]
            return array
        if getattr(value, "requires_grad", False):
            raise ValueError(
                f"{name} requires a gradient, which kernels do not compute: pass it with .detach()"
            )
        if value.is_neg():  # type: ignore[attr-defined]
            raise ValueError(f"{name} is a negated view: pass it with .resolve_neg()")
    import tvm_ffi  # here, because most processes never come here, and it takes 80 ms

    try:
        device, _ = value.__dlpack_device__()
        tensor = tvm_ffi.from_dlpack(value) if device in _CPU_DEVICES else None
        dtype = None if tensor is None else str(tensor.dtype)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]  # torch appends a C++ stack trace
        raise TypeError(f"{name} does not give its memory through DLPack: {reason}") from error
    if tensor is None or dtype is None:
        raise ValueError(
            f"{name} is not in CPU memory (its DLPack device type is {int(device)}): copy it to "
            "the CPU first, e.g. with .cpu()"
        )
    try:
        return _view(tensor, numpy_dtype(dtype))
    except TypeError as error:
        raise TypeError(f"{name} has dtype {dtype}, which NumPy does not have") from error


def like(value: object, array: npt.NDArray[Any]) -> Any:
    """Return ``array`` as a tensor of the framework of ``value``; NumPy's own for any other.

    Shares the memory, except for bfloat16 in JAX and TensorFlow, whose DLPack NumPy cannot speak.
    """
    name = framework(value)
    if name is None:
        return array
    module = sys.modules[name]
    half = array.dtype.name == "bfloat16"
    if name == "torch":
        # torch has bfloat16, NumPy's DLPack has not: the bits travel as integers.
        return (
            module.from_numpy(array.view(np.int16)).view(module.bfloat16)
            if half
            else module.from_numpy(array)
        )
    if name == "jax":
        convert = "asarray" if half else "from_dlpack"
        return getattr(importlib.import_module("jax.numpy"), convert)(array)
    if half:
        return module.convert_to_tensor(array)
    return module.experimental.dlpack.from_dlpack(array.__dlpack__())


def _view(tensor: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return a NumPy array on the memory of a tvm_ffi tensor, which it keeps alive."""
    shape = tuple(tensor.shape)
    if 0 in shape:
        return np.empty(shape, dtype)
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    reach = [(extent - 1) * stride for extent, stride in zip(shape, strides, strict=True)]
    low = sum(min(0, bytes_) for bytes_ in reach)
    high = sum(max(0, bytes_) for bytes_ in reach) + dtype.itemsize
    memory = (ctypes.c_char * (high - low)).from_address(tensor.data_ptr() + low)
    memory.owner = tensor
    return np.ndarray(shape, dtype, memory, offset=-low, strides=strides)
