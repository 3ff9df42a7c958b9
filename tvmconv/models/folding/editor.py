"""A graph while a pass rewrites it, node by node, and who reads what meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tvmconv.models.graph import Array, Graph, Node


class Editor:
    """The nodes of a graph, of which any may be replaced by one of the same name.

    A replacement stands where the node stood, so what it reads must stand in front of that. Nodes that
    nothing reads any more go at once, so that `sole` is right about the rest.
    """

    def __init__(self, graph: Graph) -> None:
        self._start = graph
        self.nodes = {node.name: node for node in graph.nodes}
        self.constants = dict(graph.constants)
        self.outputs = dict(graph.outputs)
        self.place = {node.name: index for index, node in enumerate(graph.nodes)}
        self._readers: dict[str, set[str]] = {}
        for node in graph.nodes:
            self._read(node)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of any value."""
        if name in self.nodes:
            return self.nodes[name].tensor.shape
        if name in self.constants:
            return self.constants[name].shape
        return self._start.inputs[name].shape

    def sole(self, name: str, reader: Node) -> Node | None:
        """Return the node that makes a value, if ``reader`` alone reads it and reads it once."""
        alone = self._readers.get(name) == {reader.name} and reader.inputs.count(name) == 1
        return self.nodes.get(name) if alone and name not in self.outputs.values() else None

    def add_constant(self, name: str, array: Array) -> str:
        """Add a constant of a name like ``name``; returns its name."""
        number, free = 1, name
        while free in self.nodes or free in self.constants or free in self._start.inputs:
            number += 1
            free = f"{name}:{number}"
        self.constants[free] = array
        return free

    def replace(self, node: Node) -> None:
        """Put ``node`` in the place of the one of its name."""
        before = self.nodes[node.name]
        self._read(node)
        self.nodes[node.name] = node
        self._forget(before, kept=set(node.inputs))

    def forward(self, old: str, new: str) -> None:
        """Let all that reads the value ``old`` read ``new``, and drop the node that makes ``old``."""
        for name in tuple(self._readers.get(old, ())):
            reader = self.nodes[name]
            inputs = tuple(new if each == old else each for each in reader.inputs)
            self.nodes[name] = replace(reader, inputs=inputs)
            self._read(self.nodes[name])
        self.outputs = {
            public: new if value == old else value for public, value in self.outputs.items()
        }
        self._readers[old] = set()
        self._drop(old)

    def graph(self) -> Graph:
        """Return what has become of the graph."""
        changed = replace(self._start, outputs=self.outputs)
        return changed.with_nodes(self.nodes.values(), self.constants)

    def _read(self, node: Node) -> None:
        for name in node.present:
            self._readers.setdefault(name, set()).add(node.name)

    def _forget(self, node: Node, kept: set[str]) -> None:
        for name in {*node.present} - kept:
            self._readers[name].discard(node.name)
            self._drop(name)

    def _drop(self, name: str) -> None:
        waiting = [name]
        while waiting:
            name = waiting.pop()
            if name not in self.nodes or self._readers.get(name) or name in self.outputs.values():
                continue
            for read in {*self.nodes.pop(name).present}:
                self._readers[read].discard(name)
                waiting.append(read)


# What a node becomes: another of its name, the name of a value that is the same, or None: as it is.
Rule = Callable[[Editor, Node], "Node | str | None"]


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """Apply a rule to each node, from the first to the last, until it says no more.

    An output becomes another value only if a node makes that, and it is not an output yet: readers of the
    graph find each output in a node of its own.
    """
    editor = Editor(graph)
    for name in [node.name for node in graph.nodes]:
        while name in editor.nodes:
            made = rule(editor, editor.nodes[name])
            if made is None:
                break
            if isinstance(made, Node):
                editor.replace(made)
                continue
            outputs = set(editor.outputs.values())
            if name in outputs and (made not in editor.nodes or made in outputs):
                break
            editor.forward(name, made)
    return editor.graph()
