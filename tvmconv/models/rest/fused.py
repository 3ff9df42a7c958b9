"""A group of operators that are computed element by element, as one function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx

from tvmconv.hardware import Machine
from tvmconv.models.graph import ABSENT, Graph, Node, Tensor
from tvmconv.models.rest import loops
from tvmconv.models.rest.pointwise import POINTWISE, expression
from tvmconv.models.rest.rearranging import REARRANGING, Read, Shape, broadcast_index, element
from tvmconv.models.rest.reductions import reduction_of

FUSIBLE = POINTWISE | REARRANGING


@dataclass(frozen=True)
class Group:
    """Nodes that become one function; the last one's value is its result.

    Attributes:
        nodes: in order.
        inputs: values that others make, each once: the function's arguments.
        scalars: constants of one element, which the function has inside.
        tensors: shape and dtype of all that nodes read and make.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    scalars: Mapping[str, float]
    tensors: Mapping[str, Tensor]

    @property
    def result(self) -> Node:
        """The node whose value is the function's."""
        return self.nodes[-1]

    @property
    def is_pointwise(self) -> bool:
        """Whether an element of the result depends on those at its own place only."""
        return all(node.op in POINTWISE for node in self.nodes)

    @property
    def signature(self) -> str:
        """What the function is made of: groups with the same one share it."""
        number: dict[str, object] = {name: f"%{i}" for i, name in enumerate(self.inputs)}
        number |= {name: (value, self.tensors[name].dtype) for name, value in self.scalars.items()}
        shapes = [self.tensors[name] for name in self.inputs]
        if self.is_pointwise:
            extents = collapsed(self.result.tensor.shape, [each.shape for each in shapes])
            shapes = [
                Tensor(shape, each.dtype) for shape, each in zip(extents[1:], shapes, strict=True)
            ]
            end: object = extents[0]
        else:
            end = [node.tensor for node in self.nodes]
        steps = []
        for i, node in enumerate(self.nodes):
            read = [number[name] for name in node.inputs if name != ABSENT]
            attributes = sorted(node.attributes.items()) if node.op != "reshape" else ()
            steps.append((node.op, node.tensor.dtype, read, attributes))
            number[node.name] = f"${i}"
        return repr((shapes, end, steps))


def group_of(graph: Graph, nodes: Sequence[Node]) -> Group:
    """Return the group of some nodes of a graph, in order."""
    inside = {node.name for node in nodes}
    read = dict.fromkeys(n for node in nodes for n in node.present if n not in inside)
    scalars = {
        name: graph.constants[name].reshape(-1)[0].item()
        for name in read
        if name in graph.constants and graph.constants[name].size == 1
    }
    tensors = {name: graph.tensor(name) for name in (*read, *inside)}
    return Group(tuple(nodes), tuple(n for n in read if n not in scalars), scalars, tensors)


def collapsed(shape: Shape, others: Sequence[Shape]) -> list[Shape]:
    """Merge axes along which all operands behave alike; returns the result's shape, then theirs.

    (1, 56, 56, 96) and (96,) become (3136, 96) and (1, 96): fewer and longer loops.
    """
    padded = [(1,) * (len(shape) - len(other)) + tuple(other) for other in others]
    merged: list[list[int]] = [[] for _ in range(len(others) + 1)]
    before: tuple[bool, ...] | None = None
    for axis, extent in enumerate(shape):
        if extent == 1:
            continue
        extents = (extent, *(other[axis] for other in padded))
        kind = tuple(each == extent for each in extents)
        for own, each in zip(merged, extents, strict=True):
            if kind == before:
                own[-1] *= each
            else:
                own.append(each)
        before = kind
    return [tuple(own) or (1,) for own in merged]


def fused_function(group: Group, machine: Machine) -> Any:
    """Return the scheduled function of a group: (inputs, result)."""
    result = group.result.tensor
    shapes = [group.tensors[name].shape for name in group.inputs]
    shape = result.shape or (1,)
    if group.is_pointwise:
        shape, *shapes = collapsed(result.shape, shapes)
    arguments = [
        te.placeholder(own or (1,), group.tensors[name].dtype, name=f"x{i}")
        for i, (name, own) in enumerate(zip(group.inputs, shapes, strict=True))
    ]
    reads = {
        name: _reading(argument, own)
        for name, argument, own in zip(group.inputs, arguments, shapes, strict=True)
    }
    for name, value in group.scalars.items():
        reads[name] = _constant(value, group.tensors[name].dtype)
    for node in group.nodes:
        reads[node.name] = _node(node, group, reads)
    last = reads[group.result.name]
    out = te.compute(shape, lambda *index: last(index), name="out")
    schedule = loops.start([*arguments, out])
    loops.apply_rule(schedule, machine, shape, result.dtype, _pieces(group, machine))
    return loops.finished(schedule)


def fused_reduction(group: Group, machine: Machine) -> Any:
    """Return the scheduled function of a group that ends in a reduction: what is reduced is never stored."""
    *before, last = group.nodes
    shapes = [group.tensors[name].shape for name in group.inputs]
    arguments = [
        te.placeholder(own or (1,), group.tensors[name].dtype, name=f"x{i}")
        for i, (name, own) in enumerate(zip(group.inputs, shapes, strict=True))
    ]
    reads = {
        name: _reading(argument, own)
        for name, argument, own in zip(group.inputs, arguments, shapes, strict=True)
    }
    for name, value in group.scalars.items():
        reads[name] = _constant(value, group.tensors[name].dtype)
    for node in before:
        reads[node.name] = _node(node, group, reads)
    data = group.tensors[last.inputs[0]]
    axes = [axis for axis, extent in enumerate(data.shape) if extent > 1]
    gone = [axis in last.attributes["axes"] for axis in axes]
    extents = tuple(data.shape[axis] for axis in axes)

    def read(index: tuple[Any, ...]) -> Any:
        at = dict(zip(axes, index, strict=True))
        return reads[last.inputs[0]]([at.get(axis, 0) for axis in range(len(data.shape))])

    return reduction_of(arguments, read, extents, gone, data, last, machine)


def _reading(argument: te.Tensor, shape: Shape) -> Read:
    if not shape:
        return lambda _index: argument[0]
    return lambda index: argument[tuple(broadcast_index(index, shape))]


def _constant(value: float, dtype: str) -> Read:
    return lambda _index: tirx.const(value, dtype)


def _node(node: Node, group: Group, reads: Mapping[str, Read]) -> Read:
    own = [reads[name] for name in node.present]
    if node.op in POINTWISE:
        return lambda index: expression(node, [read(index) for read in own])
    shapes = [group.tensors[name].shape for name in node.present]
    return lambda index: element(node, shapes, own, index)


def _pieces(group: Group, machine: Machine) -> tuple[int, ...]:
    """Return the vectors at which padding of the last axis begins and ends, where these fit vectors."""
    if group.is_pointwise:
        return ()
    lanes = machine.cpu.vector_bytes // np.dtype(group.result.tensor.dtype).itemsize
    points = set()
    for node in group.nodes:
        if node.op == "pad" and node.attributes["mode"] == "constant":
            (before, after), extent = node.attributes["pads"][-1], node.tensor.shape[-1]
            points |= {edge // lanes for edge in (before, extent - after) if edge % lanes == 0}
    whole = group.result.tensor.shape[-1:] or (1,)
    return tuple(point for point in points if 0 < point < whole[0] // lanes)
