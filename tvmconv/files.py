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
from collections.abc import Callable, Mapping
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


_Decoder = Callable[[Any, str], Any]


def decode(kind: Any, value: object, where: str) -> Any:
    """Return ``value``, as `parse_json` gives it, in the form of the annotation ``kind``.

    ``kind`` is a dataclass, ``tuple[T, ...]``, ``dict[str, T]``, a union, Any or a plain type, and does not
    contain itself; a JSON list becomes a tuple, and a whole number a float where that is wanted. ``where``
    names the value in messages. Raises ValueError for a type other than ``kind`` (a bool is no int), and for
    fields that are missing or unknown.
    """
    return _decoder(kind)(value, where)


# A manifest has hundreds of entries of few kinds: what an annotation means is found out once for each.
@functools.cache
def _decoder(kind: Any) -> _Decoder:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value, _: value
    if dataclasses.is_dataclass(kind):
        return _object_decoder(kind)
    if origin is tuple:
        return _list_decoder(kind, arguments[0])
    if origin in (dict, Mapping):
        inner = _decoder(arguments[1])
        return lambda value, where: (
            {k: inner(v, f"{where}[{k!r}]") for k, v in value.items()}
            if isinstance(value, dict)
            else _refuse(kind, value, where)
        )
    if origin is types.UnionType:
        return _union_decoder(arguments)
    return lambda value, where: value if type(value) is kind else _plain(kind, value, where)


def _object_decoder(kind: Any) -> _Decoder:
    inner = {name: _decoder(hint) for name, hint in typing.get_type_hints(kind).items()}

    def decode_object(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be an object, found {type(value).__name__}")
        if value.keys() != inner.keys():
            missing, unknown = sorted(set(inner) - set(value)), sorted(set(value) - set(inner))
            raise ValueError(
                f"{where} must have the fields {sorted(inner)}: missing are {missing}, unknown {unknown}"
            )
        return kind(**{name: inner[name](v, f"{where}.{name}") for name, v in value.items()})

    return decode_object


def _list_decoder(kind: Any, element: Any) -> _Decoder:
    inner, same = _decoder(element), {element}

    def decode_list(value: Any, where: str) -> Any:
        if not isinstance(value, list):
            _refuse(kind, value, where)
        if set(map(type, value)) == same and element in _PLAIN:
            return tuple(value)
        return tuple(inner(v, f"{where}[{i}]") for i, v in enumerate(value))

    return decode_list


def _union_decoder(arguments: tuple[Any, ...]) -> _Decoder:
    """Of the alternatives that are dataclasses, the one with the fields that are there."""
    plain = {each: _decoder(each) for each in arguments}
    first = next(plain[each] for each in arguments if each is not types.NoneType)
    objects = [each for each in arguments if dataclasses.is_dataclass(each)]
    by_fields = {frozenset(typing.get_type_hints(each)): plain[each] for each in objects}
    return lambda value, where: (
        by_fields.get(frozenset(value), first)
        if isinstance(value, dict)
        else plain.get(type(value), first)
    )(value, where)


_PLAIN = (int, str, float, bool)


def _plain(kind: Any, value: Any, where: str) -> Any:
    """A value whose type is not ``kind``."""
    if kind is float and type(value) is int and abs(value) < 1 << 1023:
        return float(value)
    return _refuse(kind, value, where)


def _refuse(kind: Any, value: object, where: str) -> NoReturn:
    simple = typing.get_origin(kind) is None
    expected = getattr(kind, "__name__", str(kind)) if simple else str(kind)
    raise ValueError(f"{where} must be {expected}, found {type(value).__name__}")
