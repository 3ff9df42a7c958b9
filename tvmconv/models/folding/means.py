"""A pool over the whole image is a mean, and a mean keeps the axes that a reshape behind it puts back."""

from __future__ import annotations

from dataclasses import replace

from tvmconv.models.folding.editor import Editor, rewrite
from tvmconv.models.graph import Graph, Node


def pools_to_means(graph: Graph) -> Graph:
    """So that squeeze-and-excite is always a mean of (1, 2) and convolutions of one pixel."""
    return rewrite(graph, _mean)


def _mean(editor: Editor, node: Node) -> Node | None:
    if node.op == "average_pool2d":
        whole = tuple(node.attributes["window"]) == editor.shape(node.inputs[0])[1:3]
        if whole and not any(node.attributes["pads"]):
            return replace(node, op="mean", attributes={"axes": (1, 2), "keepdims": True})
    before = editor.sole(node.inputs[0], node) if node.op == "reshape" else None
    if before is None or before.op != "mean" or before.attributes["keepdims"]:
        return None
    axes, shape = before.attributes["axes"], editor.shape(before.inputs[0])
    kept = tuple(1 if axis in axes else extent for axis, extent in enumerate(shape))
    if node.tensor.shape != kept:
        return None
    return replace(
        before, name=node.name, tensor=node.tensor, attributes={"axes": axes, "keepdims": True}
    )
