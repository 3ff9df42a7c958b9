"""Activations that a model spells out in several nodes become the one that they are."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np

from tvmconv.models.folding.editor import Editor, rewrite
from tvmconv.models.graph import Graph, Node

# relu6(x + 3) / 6 is also written with 1/6, which float32 rounds.
_CLOSE = 1e-6
_GATED = {"sigmoid": "silu", "hard_sigmoid": "hard_swish"}


def name_activations(graph: Graph) -> Graph:
    """Find relu, relu6, hard_sigmoid, hard_swish and silu in what computes them."""
    return rewrite(graph, _named)


def _named(editor: Editor, node: Node) -> Node | None:
    if node.op == "clip":
        names = {(0, 6): "relu6", (0, inf): "relu"}
        found = names.get((node.attributes["low"], node.attributes["high"]))
        return _unary(node, found, node.inputs[0]) if found else None
    if node.op in ("maximum", "minimum"):
        return _bounded(editor, node)
    if node.op == "multiply":
        return _gated(editor, node) or _sixth(editor, node)
    return _sixth(editor, node) if node.op == "divide" else None


def _unary(node: Node, op: str, data: str) -> Node:
    return replace(node, op=op, inputs=(data,), attributes={})


def _bounded(editor: Editor, node: Node) -> Node | None:
    """maximum(x, 0), and minimum(relu(x), 6)."""
    for data, bound in (node.inputs, node.inputs[::-1]):
        if node.op == "maximum" and _is_number(editor, bound, 0, node, data):
            return _unary(node, "relu", data)
        relu = editor.sole(data, node)
        if relu is not None and relu.op == "relu" and _is_number(editor, bound, 6, node, data):
            return _unary(node, "relu6", relu.inputs[0]) if node.op == "minimum" else None
    return None


def _gated(editor: Editor, node: Node) -> Node | None:
    """Finds x * sigmoid(x), and x * hard_sigmoid(x)."""
    for data, gate in (node.inputs, node.inputs[::-1]):
        maker = editor.sole(gate, node)
        if maker is not None and maker.op in _GATED and maker.inputs == (data,):
            return _unary(node, _GATED[maker.op], data)
    return None


def _sixth(editor: Editor, node: Node) -> Node | None:
    """relu6(x + 3) / 6, and x * relu6(x + 3) / 6."""
    orders = (node.inputs, node.inputs[::-1]) if node.op == "multiply" else (node.inputs,)
    factor = 1 / 6 if node.op == "multiply" else 6
    for data, number in orders:
        maker = editor.sole(data, node)
        if maker is None or not _is_number(editor, number, factor, node, data):
            continue
        shifted = _shifted(editor, data, node)
        if shifted is not None:
            return _unary(node, "hard_sigmoid", shifted)
        if maker.op == "multiply":
            for gated, gate in (maker.inputs, maker.inputs[::-1]):
                if _shifted(editor, gate, maker) == gated:
                    return _unary(node, "hard_swish", gated)
    return None


def _shifted(editor: Editor, value: str, reader: Node) -> str | None:
    """The x of relu6(x + 3)."""
    relu6 = editor.sole(value, reader)
    add = editor.sole(relu6.inputs[0], relu6) if relu6 is not None and relu6.op == "relu6" else None
    if add is None or add.op != "add":
        return None
    for data, number in (add.inputs, add.inputs[::-1]):
        if _is_number(editor, number, 3, add, data):
            return data
    return None


def _is_number(editor: Editor, name: str, number: float, node: Node, data: str) -> bool:
    """Whether a constant is ``number`` everywhere, and ``node`` has the shape of ``data``."""
    array = editor.constants.get(name)
    return (
        array is not None
        and array.size > 0
        and bool(np.all(np.abs(array - number) <= _CLOSE * number))
        and editor.shape(data) == node.tensor.shape
    )
