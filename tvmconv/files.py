"""Reads decoded JSON as dataclasses, and says which field is wrong; standard library only."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any


# A manifest has hundreds of entries of the same kind: most of the time of reading one went here.
@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def decode(kind: Any, value: object, where: str) -> Any:
    """Return ``value``, as ``json.loads`` gives it, in the form of the annotation ``kind``.

    ``kind`` is a dataclass, ``tuple[T, ...]``, ``dict[str, T]``, a union, Any or a plain type; a JSON list
    becomes a tuple. ``where`` names the value in messages. Raises ValueError for a type
    other than ``kind`` (a bool is no int), and for fields that are missing or unknown.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        fields = _fields(typing.cast(Any, kind))
        if not isinstance(value, dict) or set(value) != set(fields):
            given = sorted(value) if isinstance(value, dict) else type(value).__name__
            raise ValueError(f"{where} must have the fields {sorted(fields)}, found {given}")
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
    if origin is None and type(value) is kind:
        return value
    expected = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
    raise ValueError(f"{where} must be {expected}, found {type(value).__name__}")
