"""One operator of the file while it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvmconv.models.channels_first.steps import Steps, Value
from tvmconv.models.graph import Array


@dataclass(frozen=True)
class Operation:
    """What the functions of the tables read an operator with.

    Attributes:
        steps: add to the graph.
        kind: ``op_type``.
        opset: whose rules hold.
        inputs: None for an absent one.
        outputs: how many it makes, the last of which somebody may read.
        attributes: as the file has them.
    """

    steps: Steps
    kind: str
    opset: int
    inputs: tuple[Value | None, ...]
    outputs: int
    attributes: Mapping[str, Any]

    def has(self, index: int) -> bool:
        """Whether that input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def optional(self, index: int) -> Value | None:
        """That input, if it is there."""
        return self.inputs[index] if index < len(self.inputs) else None

    def input(self, index: int = 0) -> Value:
        """That input; ModelError where it is missing."""
        value = self.optional(index)
        if value is None:
            raise self.steps.error(f"input {index} is missing", "Export the model again.")
        return value

    @property
    def present(self) -> list[Value]:
        """All inputs that are there."""
        return [value for value in self.inputs if value is not None]

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """Of that input, as the model has it."""
        return self.steps.shape(self.input(index))

    def constant(self, index: int) -> Array:
        """Value of an input that must be known before the model runs."""
        array = self.steps.known(self.input(index))
        if array is None:
            raise self.steps.error(
                f"input {index} is computed when the model runs, but it must be a constant",
                "Export the model with fixed shapes, or simplify it.",
            )
        return array

    def numbers(self, index: int) -> list[int]:
        """Of a constant input of integers, flat."""
        array = self.constant(index)
        if array.dtype.kind not in "iu":
            raise self.steps.error(f"input {index} is {array.dtype}, not integers", "Export again.")
        return [int(each) for each in array.ravel()]

    def scalar(self, index: int, default: float) -> float:
        """Of a constant input of one element, or the default where it is absent."""
        if not self.has(index):
            return default
        array = self.constant(index)
        if array.size != 1:
            raise self.steps.error(f"input {index} has the shape {array.shape}", "Export again.")
        return float(array.ravel()[0])

    def get(self, name: str, default: Any) -> Any:
        """Return an attribute, of the type of its default."""
        value = self.attributes.get(name, default)
        wanted = float if isinstance(default, float) else type(default)
        return wanted(value) if isinstance(value, (int, float)) else value

    def integers(self, name: str, default: Sequence[int]) -> list[int]:
        """Return an attribute that is a list of integers."""
        return [int(each) for each in self.attributes.get(name, default)]

    def moved(self, name: str, index: int) -> list[int] | None:
        """Return integers of an attribute which newer opsets have as an input, or None for neither."""
        if self.has(index):
            return self.numbers(index)
        return self.integers(name, ()) if name in self.attributes else None

    def only(self, name: str, allowed: Sequence[Any], default: Any) -> Any:
        """Return an attribute of which some values are supported."""
        value = self.attributes.get(name, default)
        if value not in allowed:
            raise self.steps.error(
                f"{name}={value!r} is not supported, only {', '.join(map(repr, allowed))}",
                "Export the model with one of these.",
            )
        return value


# Reads an operator, and returns what it makes: all of its outputs in order, or the first ones.
Read = Callable[[Operation], "Value | Sequence[Value]"]
