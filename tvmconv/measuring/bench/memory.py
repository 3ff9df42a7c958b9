"""Which bytes of a model's arena hold a value at which call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tvmconv.bundle.model_entries import ArgumentEntry, LayerEntry
from tvmconv.runtime import tensors


@dataclass(frozen=True)
class Span:
    """A value of the arena: its bytes, from ``begin`` to before ``end``, and the calls that need it.

    ``first`` is the call that makes it, ``last`` the last one that reads it, ``symbol`` the function of
    the first.
    """

    symbol: str
    first: int
    last: int
    begin: int
    end: int

    def overlaps(self, begin: int, end: int) -> bool:
        """Whether it has some of these bytes."""
        return self.begin < end and begin < self.end


def spans(layers: Sequence[LayerEntry]) -> list[Span]:
    """Return the values of the arena, in the order in which the calls make them.

    A value ends with its last reader, or where another one is written over it.
    """
    return [
        _span(layers, at)
        for at, layer in enumerate(layers)
        if layer.arguments[-1].memory == "arena"
    ]


def most_bytes(found: Sequence[Span]) -> int:
    """The most bytes that values have at one call: what an arena needs at least."""
    calls = range(max((span.last for span in found), default=-1) + 1)
    return max(
        (sum(s.end - s.begin for s in found if s.first <= at <= s.last) for at in calls), default=0
    )


def _span(layers: Sequence[LayerEntry], first: int) -> Span:
    made = layers[first].arguments[-1]
    span = Span(layers[first].symbol, first, first, made.begin, made.begin + size(made))
    last = first
    for at in range(first + 1, len(layers)):
        *inputs, result = layers[at].arguments
        if any(_touches(span, each) for each in inputs):
            last = at
        if _touches(span, result):
            break
    return Span(span.symbol, first, last, span.begin, span.end)


def _touches(span: Span, argument: ArgumentEntry) -> bool:
    begin = argument.begin
    return argument.memory == "arena" and span.overlaps(begin, begin + size(argument))


def size(argument: ArgumentEntry) -> int:
    """Bytes of an argument."""
    return prod(argument.shape) * tensors.numpy_dtype(argument.dtype).itemsize
