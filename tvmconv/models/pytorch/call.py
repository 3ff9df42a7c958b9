"""One call of an ATen operator while a program is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmconv.models.channels_first.images import Pair
from tvmconv.models.channels_first.steps import Steps, Value


@dataclass(frozen=True)
class Call:
    """What the functions of the tables read a call with.

    Attributes:
        steps: add to the graph.
        kind: the operator's name without namespace, overload and the underscore of in-place ones.
        arguments: all of the schema's, by their names, defaults included; tensors are values.
    """

    steps: Steps
    kind: str
    arguments: Mapping[str, Any]

    def get(self, name: str) -> Any:
        """Return an argument, or None where the overload has none of that name."""
        return self.arguments.get(name)

    def first(self) -> Value:
        """Return the first argument, a tensor."""
        return self.value(next(iter(self.arguments)))

    def value(self, name: str, like: Value | None = None) -> Value:
        """Return a tensor; a number becomes a constant of the dtype of ``like``."""
        given = self.arguments.get(name)
        if isinstance(given, Value):
            return given
        if like is None or not isinstance(given, (bool, int, float)):
            raise self.steps.error(f"its {name} is {given!r}, no tensor", "Replace it.")
        dtype = np.dtype(self.steps.dtype(like))
        if dtype.kind != "f" and isinstance(given, float):
            raise self.steps.error(f"its {name} is {given}, but the tensor {dtype}", "Cast it.")
        return self.steps.scalar(given, like)

    def optional(self, name: str) -> Value | None:
        """Return a tensor, or None where it is absent."""
        return None if self.arguments.get(name) is None else self.value(name)

    def shape(self) -> tuple[int, ...]:
        """Of the first argument."""
        return self.steps.shape(self.first())

    def axis(self, name: str = "dim", more: int = 0) -> int:
        """Return an axis of the first argument (of a result with ``more`` axes), from the front."""
        return self.steps.axis(int(self.arguments[name]), len(self.shape()) + more)

    def axes(self, name: str = "dim") -> list[int]:
        """Return axes; an axis alone is one, and None or an empty list are all."""
        given, rank = self.arguments.get(name), len(self.shape())
        if isinstance(given, int):
            given = [given]
        return [self.steps.axis(axis, rank) for axis in given or range(rank)]

    def numbers(self, name: str) -> list[int]:
        """Return integers, which must be known before the model runs."""
        given = self.arguments.get(name)
        given = [given] if isinstance(given, int) else given
        if given is None or not all(isinstance(each, int) for each in given):
            raise self.steps.error(f"its {name} is {given!r}", "Export it with fixed shapes.")
        return list(given)

    def pair(self, name: str, default: Sequence[int] = (1, 1)) -> Pair:
        """Return two integers; one counts for both axes, and none are the default."""
        given = self.numbers(name) or list(default)
        if len(given) > 2 or min(given, default=-1) < 0:
            raise self.steps.error(f"its {name} is {given}", "Only images are supported.")
        return given[0], given[-1]

    def only(self, name: str, allowed: Sequence[Any]) -> Any:
        """Return an argument of which some values are supported."""
        value = self.arguments.get(name, allowed[0])
        if value not in allowed:
            raise self.steps.error(
                f"{name}={value!r} is not supported, only {', '.join(map(repr, allowed))}",
                "Change it in the module.",
            )
        return value


# Reads a call, and returns what it makes: a value or several.
Read = Callable[[Call], "Value | Sequence[Value]"]
