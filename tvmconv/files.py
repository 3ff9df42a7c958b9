"""Reads files and JSON as dataclasses, and says what is wrong; standard library only."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import math
import os
import stat
import types
import typing
from collections.abc import Mapping
from typing import Any, BinaryIO, NoReturn

_DEEPEST = 100  # what we write is five deep; Python's own limit lies between 300 and 1000 calls
_LARGEST = 1 << 30  # bytes: a sparse file can claim any size


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read it; raises OSError as ``open`` does, and for what is no regular file.

    To read a named pipe would be to wait for ever.
    """
    # Without O_NONBLOCK, opening a named pipe waits already.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    stream = open(handle, "rb")  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return stream


def read_bytes(path: str | os.PathLike[str], largest: int = _LARGEST) -> bytes:
    """Return what is in a file; raises OSError as `open_file`, and for more than ``largest`` bytes."""
    with open_file(path) as stream:
        if os.fstat(stream.fileno()).st_size > largest:
            raise OSError(errno.EFBIG, f"it has more than {largest} bytes", str(path))
        return stream.read()


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return what the JSON in a file spells; raises OSError as `read_bytes`, ValueError as `parse_json`."""
    return parse_json(read_bytes(path))


def parse_json(text: str | bytes) -> Any:
    """Return what JSON spells; raises ValueError for anything else.

    Also for NaN and infinite numbers, which are no JSON, and for lists and objects 100 deep, at which
    whoever walks through them would run out of Python's stack.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"lists and objects stand more than {_DEEPEST} deep") from None
    inner, depth = [value], 0
    while inner:
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"lists and objects stand more than {_DEEPEST} deep")
        inner = [child for each in inner for child in _children(each)]
    return value


def _children(value: object) -> list[Any]:
    """What can hold more values, of the values in a list or an object."""
    held: Any = ()
    if isinstance(value, dict):
        held = value.values()
    elif isinstance(value, list):
        held = value
    return [each for each in held if isinstance(each, dict | list)]


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


# A manifest has hundreds of entries of the same kind: most of the time of reading one went here.
@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def decode(kind: Any, value: object, where: str) -> Any:
    """Return ``value``, as `parse_json` gives it, in the form of the annotation ``kind``.

    ``kind`` is a dataclass, ``tuple[T, ...]``, ``dict[str, T]``, a union, Any or a plain type; a JSON list
    becomes a tuple, and a whole number a float where that is wanted. ``where`` names the value in
    messages. Raises ValueError for a type other than ``kind`` (a bool is no int), and for fields that
    are missing or unknown.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        fields = _fields(typing.cast(Any, kind))
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be an object, found {type(value).__name__}")
        if set(value) != set(fields):
            missing, unknown = sorted(set(fields) - set(value)), sorted(set(value) - set(fields))
            raise ValueError(
                f"{where} must have the fields {sorted(fields)}: missing are {missing}, unknown {unknown}"
            )
        decoded = {n: decode(fields[n], v, f"{where}.{n}") for n, v in value.items()}
        return typing.cast(Any, kind)(**decoded)
    if origin is tuple and isinstance(value, list):
        return tuple(decode(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {k: decode(arguments[1], v, f"{where}[{k!r}]") for k, v in value.items()}
    if origin is types.UnionType:
        if value is None and types.NoneType in arguments:
            return None
        plain = next((each for each in arguments if type(value) is each), arguments[0])
        return decode(plain, value, where)
    if kind is float and type(value) is int and abs(value) < 1 << 1023:
        return float(value)
    if origin is None and type(value) is kind:
        return value
    expected = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
    raise ValueError(f"{where} must be {expected}, found {type(value).__name__}")
