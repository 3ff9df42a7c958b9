"""A model as readers give it and later steps take it: nodes in order, NHWC, TensorFlow's semantics.

A node makes one value and is that value's name; `operators` lists what it may compute. Everything has a
fixed shape. Passes are functions from a graph to a graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmconv.errors import ModelError
from tvmconv.models import operators

Array = npt.NDArray[Any]
MOST_ELEMENTS = 2**31 - 1  # of a value: compiled loops count in int32
ABSENT = ""  # stands in ``Node.inputs`` for an optional input that is not there


@dataclass(frozen=True)
class Tensor:
    """Shape and dtype of a value."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Of its elements, packed."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Node:
    """One operation and the value that it makes.

    Attributes:
        name: of the value; unique among a graph's inputs, constants and nodes.
        op: a name in `operators.OPERATORS`, which says what inputs and attributes mean.
        inputs: names of values, in the operator's order, `ABSENT` for an optional one that is missing.
        tensor: shape and dtype of the value.
        attributes: all of the operator's, as plain numbers, strings and tuples.
        place: where it stood in the model, for messages: ``CONV_2D, operator 12``.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    tensor: Tensor
    attributes: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""

    @property
    def present(self) -> tuple[str, ...]:
        """Its inputs less those that are absent."""
        return tuple(name for name in self.inputs if name != ABSENT)


@dataclass(frozen=True, eq=False)
class Graph:
    """A model.

    Attributes:
        name: of the model, for people.
        inputs: name -> tensor, in the model's order.
        constants: name -> array; filters are HWIO, of depthwise convolutions HWCM.
        nodes: each behind those that it reads.
        outputs: public name -> name of the value, in the model's order.
    """

    name: str
    inputs: Mapping[str, Tensor]
    constants: Mapping[str, Array]
    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]

    def tensor(self, name: str) -> Tensor:
        """Shape and dtype of any value; KeyError for an unknown name."""
        if name in self.inputs:
            return self.inputs[name]
        if name in self.constants:
            array = self.constants[name]
            return Tensor(array.shape, array.dtype.name)
        return self.makers[name].tensor

    @property
    def makers(self) -> dict[str, Node]:
        """Name of a value -> the node that makes it."""
        return {node.name: node for node in self.nodes}

    @property
    def users(self) -> dict[str, list[Node]]:
        """Name of a value -> the nodes that read it, in order, once each."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.present):
                found.setdefault(name, []).append(node)
        return found

    def with_nodes(
        self, nodes: Iterable[Node], constants: Mapping[str, Array] | None = None
    ) -> Graph:
        """The graph of other nodes, less nodes and constants that nothing reads any more.

        ``constants`` are added to those that there are.
        """
        kept, needed = [], set(self.outputs.values())
        for node in reversed(tuple(nodes)):
            if node.name in needed:
                kept.append(node)
                needed.update(node.present)
        every = {**self.constants, **(constants or {})}
        used = {name: array for name, array in every.items() if name in needed}
        return replace(self, nodes=tuple(reversed(kept)), constants=used)


class Builder:
    """Collects a graph's values while a model is read, and infers their shapes.

    Names that a model gives twice, or not at all, get a number behind them.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.inputs: dict[str, Tensor] = {}
        self.constants: dict[str, Array] = {}
        self.nodes: list[Node] = []
        self.outputs: dict[str, str] = {}
        self._tensors: dict[str, Tensor] = {}

    def tensor(self, name: str) -> Tensor:
        """Shape and dtype of a value that is already there."""
        return self._tensors[name]

    def input(self, name: str, shape: Sequence[int], dtype: str) -> str:
        """Add an input of the model; returns the name of its value."""
        name = self._new(name or "input", Tensor(tuple(shape), dtype))
        self.inputs[name] = self._tensors[name]
        return name

    def constant(self, name: str, array: Array) -> str:
        """Add a constant; returns the name of its value."""
        name = self._new(name or "constant", Tensor(array.shape, array.dtype.name))
        self.constants[name] = array
        return name

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        name: str = "",
        place: str = "",
        dtype: str | None = None,
        **attributes: Any,
    ) -> str:
        """Add an operation; returns the name of its value.

        Its dtype is that of its first input unless the operator or ``dtype``, an attribute of some operators,
        says otherwise. Raises ModelError, which names ``place``, for shapes or attributes that do not fit
        the operator, and for a value that is too large.
        """
        if dtype and op in operators.OPERATORS and "dtype" in operators.OPERATORS[op].attributes:
            attributes["dtype"] = dtype
        shapes = [self._tensors[each].shape if each != ABSENT else None for each in inputs]
        dtypes = [self._tensors[each].dtype for each in inputs if each != ABSENT]
        shape = operators.infer_shape(op, shapes, attributes, place)
        if prod(shape) > MOST_ELEMENTS:
            raise ModelError(f"{place}: {op} makes {shape}, more than {MOST_ELEMENTS} elements")
        made = operators.OPERATORS[op].dtype or dtype or dtypes[0]
        name = self._new(name or op, Tensor(shape, made))
        self.nodes.append(Node(name, op, tuple(inputs), self._tensors[name], attributes, place))
        return name

    def output(self, name: str, value: str) -> None:
        """Say that ``value`` is an output of the model."""
        self.outputs[_free(name or value, self.outputs)] = value

    def graph(self) -> Graph:
        """What was collected, less what no output needs."""
        whole = Graph(self.name, self.inputs, self.constants, tuple(self.nodes), self.outputs)
        return whole.with_nodes(whole.nodes)

    def _new(self, name: str, tensor: Tensor) -> str:
        name = _free(name, self._tensors)
        self._tensors[name] = tensor
        return name


def _free(name: str, taken: Mapping[str, Any]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}:{number}"
    return free
