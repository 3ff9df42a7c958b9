"""Decisions as typed values: what a schedule reads from the mapping of named values, once."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, get_type_hints

from tvmconv.hardware import Decisions

Typed = TypeVar("Typed")


def read(kind: type[Typed], decisions: Decisions) -> Typed:
    """Return decisions as a dataclass that has a field, int or str, for every knob.

    A knob that is not in the space needs a field with a default. What is decided beyond the fields is
    not read.
    """
    known: Any = kind  # which mypy does not take for hashable
    values = {name: made(decisions[name]) for name, made in _fields(known) if name in decisions}
    return kind(**values)


@cache
def _fields(kind: Any) -> list[tuple[str, Any]]:
    return list(get_type_hints(kind).items())
