"""Where the values of a model lie in one block of memory, by when they are alive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


@dataclass(frozen=True)
class Lifetime:
    """Steps at which a value is first and last needed, both counted, and its bytes."""

    first: int
    last: int
    bytes: int

    def meets(self, other: Lifetime) -> bool:
        """Whether both are alive at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """Where each value begins, and how large the whole is, in bytes."""

    offsets: Mapping[str, int]
    bytes: int


def plan(lifetimes: Mapping[str, Lifetime]) -> Arena:
    """Place values so that no two that are alive at once share memory.

    Greedy by size (Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020):
    the largest first, each at the lowest place that is free while it is alive.
    """
    offsets: dict[str, int] = {}
    end = 0
    for name in sorted(lifetimes, key=lambda each: (-lifetimes[each].bytes, each)):
        own = lifetimes[name]
        size = aligned(own.bytes)
        taken = sorted(
            (offsets[other], offsets[other] + aligned(lifetimes[other].bytes))
            for other in offsets
            if lifetimes[other].meets(own)
        )
        at = 0
        for begin, stop in taken:
            if at + size <= begin:
                break
            at = max(at, stop)
        offsets[name] = at
        end = max(end, at + size)
    return Arena(offsets, end)


def aligned(size: int) -> int:
    """Round up to whole cache lines."""
    return -(-size // ALIGNMENT) * ALIGNMENT
