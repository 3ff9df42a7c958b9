"""Nodes of constants alone are computed when a model is read, not when it runs."""

from __future__ import annotations

import numpy as np

from tvmconv.models.graph import Array, Builder, Graph, Node
from tvmconv.models.operators import OPERATORS
from tvmconv.models.reference import compute

# A few bytes of a file can ask for gigabytes (a constant broadcast to a huge shape); what is larger than
# both this and its inputs stays a node.
LARGEST: int = 1 << 26


def settled(builder: Builder, name: str) -> str:
    """Make the builder's last node, ``name``, a constant if its inputs are some; returns ``name``."""
    node = builder.nodes[-1]
    if node.name == name and _foldable(node, builder.constants):
        builder.constants[name] = _value(node, builder.constants)
        builder.nodes.pop()
    return name


def fold_constants(graph: Graph) -> Graph:
    """Make constants of all nodes whose inputs are some."""
    constants, nodes = dict(graph.constants), []
    for node in graph.nodes:
        if _foldable(node, constants):
            constants[node.name] = _value(node, constants)
        else:
            nodes.append(node)
    return graph.with_nodes(nodes, constants)


def _foldable(node: Node, constants: dict[str, Array]) -> bool:
    if not all(name in constants for name in node.present) or node.op not in OPERATORS:
        return False
    given = sum(constants[name].nbytes for name in node.present)
    return node.tensor.bytes <= max(LARGEST, 2 * given)


def _value(node: Node, constants: dict[str, Array]) -> Array:
    made = compute(node, [constants[name] if name else None for name in node.inputs])
    return np.ascontiguousarray(made.astype(node.tensor.dtype, copy=False))
