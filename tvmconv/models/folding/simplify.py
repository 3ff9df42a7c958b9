"""What does nothing goes, and what is computed twice is computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tvmconv.models.folding.editor import Editor, rewrite
from tvmconv.models.graph import ABSENT, Graph, Node

_NEUTRAL = {"add": 0, "subtract": 0, "multiply": 1, "divide": 1}
_VIEWS = ("reshape", "broadcast_to", "resize", "slice", "pad", "cast", "transpose", "concat")


def drop_identities(graph: Graph) -> Graph:
    """Without nodes that return what they are given, and with one reshape or transpose for two."""
    return rewrite(graph, _simplified)


def share_equal_nodes(graph: Graph) -> Graph:
    """With one node for all that compute the same of the same inputs."""
    seen: dict[Any, str] = {}

    def first(_editor: Editor, node: Node) -> str | None:
        if node.op == "dequantize":  # fuses with its reader, if that is the only one
            return None
        key = (node.op, node.inputs, node.tensor, _frozen(node.attributes))
        name = seen.setdefault(key, node.name)
        return None if name == node.name else name

    return rewrite(graph, first)


def _frozen(attributes: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in attributes.items()))


def _simplified(editor: Editor, node: Node) -> Node | str | None:
    if _is_identity(editor, node):
        return next(name for name in node.inputs if name not in editor.constants)
    before = editor.nodes.get(node.inputs[0]) if node.inputs else None
    if before is None:
        return None
    if node.op == "reshape" == before.op:
        return replace(node, inputs=before.inputs)
    if node.op == "transpose" == before.op:
        inner, outer = before.attributes["permutation"], node.attributes["permutation"]
        order = tuple(inner[axis] for axis in outer)
        return replace(node, inputs=before.inputs, attributes={"permutation": order})
    if node.op == "transpose" and _keeps_order(editor.shape(node.inputs[0]), node):
        return replace(node, op="reshape", attributes={"shape": node.tensor.shape})
    return None


def _is_identity(editor: Editor, node: Node) -> bool:
    data = [name for name in node.inputs if name not in editor.constants]
    if len(data) != 1 or data == [ABSENT] or editor.shape(data[0]) != node.tensor.shape:
        return False
    if node.op in _NEUTRAL and len(node.inputs) == 2:
        other = node.inputs[1] if node.inputs[0] == data[0] else node.inputs[0]
        commutes = node.op in ("add", "multiply")
        return (commutes or other == node.inputs[1]) and bool(
            np.all(editor.constants[other] == _NEUTRAL[node.op])
        )
    if node.op not in _VIEWS or len(node.inputs) != 1:
        return False
    if node.op == "transpose":
        return list(node.attributes["permutation"]) == sorted(node.attributes["permutation"])
    if node.op == "slice":
        return all(step == 1 for step in node.attributes["strides"])
    if node.op == "cast":
        maker = editor.nodes.get(data[0])
        return maker is not None and maker.tensor.dtype == node.tensor.dtype
    return node.op != "pad" or not any(map(any, node.attributes["pads"]))


def _keeps_order(shape: tuple[int, ...], node: Node) -> bool:
    """Whether a transpose moves only axes of one element past others."""
    order = [axis for axis in node.attributes["permutation"] if shape[axis] != 1]
    return order == sorted(order)
