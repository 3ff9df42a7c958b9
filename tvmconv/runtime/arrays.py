"""Checks arrays and hands their memory to kernels as DLTensor structs.

NumPy's own ``__dlpack__`` is not used: it fails for read-only arrays, bfloat16 and empty arrays,
and costs more than a small kernel. A kernel's shapes and dtypes are fixed, so a call only has to
set the address in a struct that is prepared once.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from tvmconv.problem.rules import ALIGNMENT
from tvmconv.runtime import arguments, tensors

if TYPE_CHECKING:
    import numpy.typing as npt

    from tvmconv.problem.calling import Operand, Signature

Array = np.ndarray[Any, np.dtype[Any]]  # not numpy.typing's: it takes 0.5 ms to import
DType = np.dtype[Any]

# NumPy's array interface: C-contiguous, aligned to the element, native byte order; and writable.
READABLE = 0x1 | 0x100 | 0x200
WRITABLE = READABLE | 0x400

_CPU = 1
_TYPE_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_BFLOAT = 4


class DLTensor(ctypes.Structure):
    """The C struct of DLPack through which kernels see an array."""

    extents: ctypes.Array[ctypes.c_int64]
    array: Array
    _fields_ = (
        ("data", ctypes.c_size_t),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    )


class _ArrayInterface(ctypes.Structure):
    """The head of NumPy's documented PyArrayInterface, which ``__array_struct__`` points to."""

    _fields_ = (
        ("two", ctypes.c_int),
        ("nd", ctypes.c_int),
        ("typekind", ctypes.c_char),
        ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_int),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("data", ctypes.c_size_t),
    )


# A prototype of our own: setting types on ctypes.pythonapi.PyCapsule_GetPointer would change it for
# everybody in the process.
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_size_t, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_interface_at = _ArrayInterface.from_address


def tensor(shape: tuple[int, ...], dtype: DType, address: int = 0) -> DLTensor:
    """Return a struct for a C-contiguous array in CPU memory at ``address``."""
    extents = (ctypes.c_int64 * len(shape))(*shape)
    code = _BFLOAT if dtype.name == "bfloat16" else _TYPE_CODES[dtype.kind]
    struct = DLTensor(
        address,
        _CPU,
        0,
        len(shape),
        code,
        dtype.itemsize * 8,
        1,
        ctypes.addressof(extents),
        None,
        0,
    )
    struct.extents = extents  # shape points into it
    return struct


def array_tensor(array: Array) -> DLTensor:
    """Return a struct for a C-contiguous array, which it keeps alive."""
    struct = tensor(array.shape, array.dtype, data_address(array))
    struct.array = array
    return struct


def pointer(struct: DLTensor) -> ctypes.c_void_p:
    """Return the struct's address as ``tvm_ffi`` hands it over: to kernels, which see a DLTensor there.

    It keeps the struct alive.
    """
    result = ctypes.c_void_p(ctypes.addressof(struct))
    result.struct = struct  # type: ignore[attr-defined] # ctypes objects take attributes
    return result


def array_pointer(array: Array) -> ctypes.c_void_p:
    """Return a pointer for a C-contiguous array, which it keeps alive."""
    return pointer(array_tensor(array))


def address(array: object, shape: tuple[int, ...], dtype: DType, flags: int) -> int:
    """Return where the data of ``array`` lies if a kernel can use it as it is, else 0.

    ``flags`` is READABLE or WRITABLE. It runs for every argument of every call: 0.6 to 0.8 us.
    """
    if type(array) is not np.ndarray or array.dtype != dtype or array.shape != shape:
        return 0
    capsule = array.__array_struct__  # owns the interface struct, so it must outlive the next lines
    interface = _interface_at(_capsule_pointer(capsule, None))
    return interface.data if interface.flags & flags == flags else 0


def data_address(array: Array) -> int:
    """Return the address of the first element."""
    capsule = array.__array_struct__
    return int(_interface_at(_capsule_pointer(capsule, None)).data)


def empty_aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Return an uninitialised C-contiguous array whose first element lies on a 64-byte boundary.

    Kernels run with any alignment that NumPy gives, fastest with this one.
    """
    element = np.dtype(dtype)
    raw = np.empty(math.prod(shape) * element.itemsize + ALIGNMENT, np.uint8)
    return np.ndarray(shape, element, raw, offset=-data_address(raw) % ALIGNMENT)


def aligned_copy(array: Array) -> Array:
    """Return a C-contiguous copy whose first element lies on a 64-byte boundary."""
    copy = empty_aligned(array.shape, array.dtype)
    copy[...] = array
    return copy


def empty(operand: Operand) -> Array:
    """Return `empty_aligned` memory for an operand, in the form in which the function takes it."""
    return empty_aligned(operand.taken_shape, tensors.numpy_dtype(operand.taken_dtype))


def ordered(signature: Signature, values: Mapping[str, Array]) -> list[Array]:
    """Return the arrays of operands, by name, as the function takes them: in its order and its shapes.

    Arrays must be C-contiguous and a packed filter packed; what is returned shares their memory.
    """
    pairs = zip(signature.taken, signature.ordered(values), strict=True)
    return [array.reshape(operand.taken_shape) for operand, array in pairs]


@dataclasses.dataclass(frozen=True)
class Argument(arguments.Argument):
    """One array argument of a kernel on the CPU, and what to do about another shape."""

    other_shape: str = "a kernel serves one problem; build one for yours: tvmconv build"

    def readable(self, value: object) -> Array:
        """Return ``value`` as a C-contiguous, aligned array in native byte order.

        Copies only an array that is not so. Raises TypeError for what is no array and for a wrong
        dtype, ValueError for a wrong shape or device.
        """
        dtype = tensors.numpy_dtype(self.dtype)
        return np.require(self._checked(value), dtype, ["C_CONTIGUOUS", "ALIGNED"])

    def writable(self, value: object) -> Array:
        """Return a view of ``value`` to write to, with any strides and byte order.

        Raises as `readable` does, and ValueError for a read-only array.
        """
        if not isinstance(value, np.ndarray) and tensors.framework(value) != "torch":
            raise TypeError(
                f"{self.name} of {self.key} must be a NumPy array or a torch tensor, "
                f"{type(value).__name__} was given: leave it out, the result is returned"
            )
        array = self._checked(value)
        if not array.flags.writeable:
            raise ValueError(
                f"{self.name} of {self.key} is read-only: pass a writable array, or leave it out"
            )
        return array

    def _checked(self, value: object) -> Array:
        self.is_given(value)
        array = tensors.as_array(value, f"{self.name} of {self.key}")
        if array.shape != self.shape:
            self._fail(ValueError, f"shape {array.shape}", f"shape {self.shape}")
        dtype = tensors.numpy_dtype(self.dtype)
        if array.dtype != dtype and array.dtype.newbyteorder("=") != dtype:
            self._fail(TypeError, f"dtype {array.dtype}", f"dtype {self.dtype}")
        return array

    def _fail(self, kind: type[Exception], given: str, expected: str) -> NoReturn:
        advice = (
            f"convert it, e.g. with .astype({self.dtype!r})"
            if kind is TypeError
            else self.other_shape
        )
        raise kind(f"{self.name} of {self.key} must have {expected}, {given} was given: {advice}")
