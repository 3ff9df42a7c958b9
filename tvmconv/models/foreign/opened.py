"""What a runtime is asked for, and what it makes of a model's file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tvmconv.errors import ModelError
from tvmconv.models.graph import Array

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """A model to open.

    Attributes:
        model: the file.
        inputs: by name, in the model's order; their shapes are what the model is prepared for.
        outputs: their names, in the model's order.
        threads: of a call.
    """

    model: Path
    inputs: Mapping[str, Array]
    outputs: Sequence[str]
    threads: int

    def picked(self, names: Sequence[str], values: Mapping[str, T], runtime: str) -> list[T]:
        """Return ``values`` in the order of ``names``; ModelError where the names are others."""
        if set(names) != set(values):
            raise ModelError(
                f"{self.model.name}: {runtime} and the compiled model differ in what they call inputs or "
                f"outputs: {sorted(names)} and {sorted(values)}. Is this the model that was compiled?"
            )
        return [values[name] for name in names]


@dataclass(frozen=True)
class Opened:
    """A model with its inputs in place.

    Attributes:
        call: one inference, as a user of the runtime would run it.
        results: the outputs of the last call, in the model's order.
    """

    call: Callable[[], object]
    results: Callable[[], list[Array]]
