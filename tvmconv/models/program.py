"""A model as calls of compiled functions, before it is one function itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tvmconv.models.graph import Array, Graph, Node, Tensor


@dataclass(frozen=True)
class Call:
    """One call of a function: values in its order, the value that it makes, and the nodes it computes."""

    symbol: str
    inputs: tuple[str, ...]
    result: str
    nodes: tuple[Node, ...]
    key: str | None = None  # of the convolution


@dataclass(frozen=True)
class Packing:
    """A constant that is made by the packing function of a convolution."""

    filter: str
    key: str


@dataclass
class Program:
    """What a main function calls, in order.

    Attributes:
        graph: whose inputs and outputs these are.
        calls: of functions by symbol: of ``rest``, or the key of a convolution.
        rest: symbol -> scheduled function.
        tensors: of all values that calls read or make.
        constants: arrays that calls read, or how to make them.
        views: value -> the value in whose memory it is, and where, in bytes.
        placed: value -> the output of the graph as which it is written, straight to the caller's memory.
        symbols: what a function is made of -> its symbol.
    """

    graph: Graph
    calls: list[Call] = field(default_factory=list)
    rest: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[str, Array | Packing] = field(default_factory=dict)
    views: dict[str, tuple[str, int]] = field(default_factory=dict)
    placed: dict[str, str] = field(default_factory=dict)
    symbols: dict[str, str] = field(default_factory=dict)

    def home(self, name: str) -> tuple[str, int]:
        """The value whose memory ``name`` is in, and how many bytes from its beginning."""
        offset = 0
        while name in self.views:
            name, more = self.views[name]
            offset += more
        return name, offset
