"""Calls libtvm_ffi through its C interface, without the Python package around it.

``import tvm_ffi`` takes a process as long as NumPy does, and imports PyTorch where that is installed. The
structs are those of ``tvm/ffi/c_api.h``. A prepared call costs 0.3 us beside what it calls, less than one
through the package.
"""

from __future__ import annotations

import builtins
import ctypes
import functools
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tvmconv import errors

# Of TVMFFITypeIndex.
_INT, _DLTENSOR, _STRING, _FIRST_OBJECT = 1, 7, 8, 64


class _Value(ctypes.Structure):
    """TVMFFIAny: an argument or a result."""

    _fields_ = (("type", ctypes.c_int32), ("zero", ctypes.c_uint32), ("bits", ctypes.c_int64))


class _Header(ctypes.Structure):
    """TVMFFIObject, with which every object begins."""

    _fields_ = (
        ("references", ctypes.c_uint64),
        ("type", ctypes.c_int32),
        ("padding", ctypes.c_uint32),
        ("deleter", ctypes.c_void_p),
    )


class _Text(ctypes.Structure):
    """TVMFFIByteArray."""

    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t))

    def __str__(self) -> str:
        return ctypes.string_at(self.data, self.size).decode(errors="replace")


class _FunctionObject(ctypes.Structure):
    """The head of a function: how it is called, without exceptions of C++."""

    _fields_ = (("header", _Header), ("safe_call", ctypes.c_void_p))


class _ErrorObject(ctypes.Structure):
    """The head of an error."""

    _fields_ = (("header", _Header), ("kind", _Text), ("message", _Text))


# Arguments without declared types, given as pointers made before, are converted in half the time.
_SAFE_CALL = ctypes.CFUNCTYPE(ctypes.c_int)
_GIVE = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.POINTER(_Value)
)


@functools.cache
def _library() -> ctypes.CDLL:
    """The library of the installed package, the same one that the package opens.

    Raises MissingToolError where it is not installed.
    """
    spec = importlib.util.find_spec("tvm_ffi")
    if spec is None or spec.origin is None:
        raise errors.MissingToolError(
            "kernels need a package that is not installed; run: pip install apache-tvm-ffi"
        )
    path = Path(spec.origin).parent / "lib" / "libtvm_ffi.so"
    if not path.is_file():  # not laid out as its wheels are: it knows where its library is
        import tvm_ffi

        path = Path(tvm_ffi.LIB._name)
    library = ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    for function in (library.TVMFFIObjectIncRef, library.TVMFFIObjectDecRef):
        function.argtypes = [ctypes.c_void_p]
    return library


class Object:
    """A reference to an object of libtvm_ffi, which is given back when this is dropped."""

    __slots__ = ("__weakref__", "address")

    def __init__(self, address: int) -> None:
        self.address = address

    # The parameter outlives the names of this module when the interpreter ends.
    def __del__(self, library: Callable[[], ctypes.CDLL] = _library) -> None:
        library().TVMFFIObjectDecRef(self.address)

    @property
    def type(self) -> int:
        """Its TVMFFITypeIndex."""
        return int(_Header.from_address(self.address).type)


class Function:
    """A function. Calls release Python's global lock and may be made from several threads at once."""

    __slots__ = ("_call", "_self")

    def __init__(self, reference: Object) -> None:
        self._self = ctypes.byref(_Header.from_address(reference.address))
        self._call = _SAFE_CALL(_FunctionObject.from_address(reference.address).safe_call)
        self._call.errcheck = _check  # type: ignore[assignment] # it takes any result
        self._call.reference = reference  # type: ignore[attr-defined] # prepared calls keep it too

    def __call__(self, *arguments: int | str | Object) -> Any:
        """Call it; return the `Object` that it returns, None for any other value.

        Raises the built-in exception of the name that its error has, RuntimeError for other names.
        """
        given = [os.fsencode(each) if isinstance(each, str) else each for each in arguments]
        values = (_Value * len(given))(*map(_value, given))
        result = _Value()
        self._call(self._self, ctypes.byref(values), len(given), ctypes.byref(result))
        return Object(result.bits) if result.type >= _FIRST_OBJECT else None

    def prepared(self, tensors: Sequence[ctypes.Structure]) -> Callable[[], object]:
        """Return a call with these DLTensor structs, to be made any number of times, one at a time.

        It sees what the structs point to at that time; it keeps them, and raises as `__call__` does.
        """
        addresses = [_Value(_DLTENSOR, 0, ctypes.addressof(each)) for each in tensors]
        values = (_Value * len(addresses))(*addresses)
        values.tensors = tuple(tensors)  # type: ignore[attr-defined] # ctypes objects take attributes
        where = ctypes.byref(values), len(addresses), ctypes.byref(_Value())
        return functools.partial(self._call, self._self, *where)


def find_function(name: str) -> Function | None:
    """Return the function that is registered by that name in this process, None if there is none."""
    text = name.encode()
    address, found = _address(text), ctypes.c_void_p()
    _library().TVMFFIFunctionGetGlobal(ctypes.byref(_Text(address, len(text))), ctypes.byref(found))
    return Function(Object(found.value)) if found.value else None


def required_function(name: str) -> Function:
    """Return the same; BundleError where another version of the libraries lacks it."""
    found = find_function(name)
    if found is None:
        raise errors.BundleError(
            f"no library in this process has the function {name}: another version of apache-tvm-ffi or tvm "
            "is loaded than this package works with; run: pip install --upgrade tvmconv apache-tvm-ffi"
        )
    return found


def lent(reference: Object) -> Any:
    """Return the object as the package ``tvm_ffi`` has it, which is imported for that."""
    import tvm_ffi

    def give(_self: int, _arguments: int, _count: int, result: Any) -> int:
        _library().TVMFFIObjectIncRef(reference.address)
        result[0] = _Value(reference.type, 0, reference.address)
        return 0

    function = _GIVE(give)
    address = ctypes.cast(function, ctypes.c_void_p).value
    return tvm_ffi.core.Function.__from_extern_c__(address)()


def _value(argument: int | bytes | Object) -> _Value:
    if isinstance(argument, Object):
        return _Value(argument.type, 0, argument.address)
    if isinstance(argument, bytes):
        return _Value(_STRING, 0, _address(argument))
    return _Value(_INT, 0, argument)


def _address(text: bytes) -> int | None:
    return ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p).value


def _check(failed: int, _function: object, _arguments: object) -> None:
    if failed:
        raise _raised()


def _raised() -> Exception:
    """Take the error that this thread's last call has left."""
    found = ctypes.c_void_p()
    _library().TVMFFIErrorMoveFromRaised(ctypes.byref(found))
    if found.value is None:
        return RuntimeError("libtvm_ffi reports an error and does not say which")
    reference = Object(found.value)
    error = _ErrorObject.from_address(reference.address)
    kind = getattr(builtins, str(error.kind), None)
    if not isinstance(kind, type) or not issubclass(kind, Exception):
        kind = RuntimeError
    return kind(str(error.message))
