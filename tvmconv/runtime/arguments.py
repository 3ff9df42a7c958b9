"""What a call's arguments must be, on any device: whether one is given at all."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from tvmconv.problem.calling import Operand

_A = TypeVar("_A", bound="Argument")


@dataclasses.dataclass(frozen=True)
class Argument:
    """One argument in calls of the kernel ``key``: the operand that it becomes."""

    kind: ClassVar[str] = "an array"

    name: str
    key: str
    shape: tuple[int, ...]
    dtype: str
    present: bool

    @classmethod
    def of(cls: type[_A], operand: Operand, key: str, *place: Any) -> _A:
        """Return the argument for an operand; ``place`` are the fields that a device adds."""
        return cls(operand.keyword, key, operand.shape, operand.dtype, operand.present, *place)

    def is_given(self, value: object) -> bool:
        """Whether there is a value to look at; ValueError for one that is missing, or too many."""
        if self.present and value is None:
            raise ValueError(
                f"{self.key} was built with {self.name}, but none was given: pass "
                f"{self.kind} of shape {self.shape} and dtype {self.dtype}"
            )
        if not self.present and value is not None:
            raise ValueError(
                f"{self.key} was built without {self.name}, but one was given: leave it out, or "
                f"build the spec with {self.name}=True"
            )
        return self.present
