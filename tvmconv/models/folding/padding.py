"""Padding of images goes into the convolutions and pools behind it."""

from __future__ import annotations

from dataclasses import replace

from tvmconv.models.folding.editor import Editor, rewrite
from tvmconv.models.graph import Graph, Node


def fold_padding(graph: Graph) -> Graph:
    """Let convolutions and average pools pad with zeros themselves."""
    return rewrite(graph, _padded)


def _padded(editor: Editor, node: Node) -> Node | None:
    before = editor.nodes.get(node.inputs[0]) if node.inputs else None
    if before is None or before.op != "pad" or not is_zeros(before):
        return None
    batch, rows, columns, channels = (
        before.attributes["pads"] if len(before.tensor.shape) == 4 else [(1, 1)] * 4
    )
    if any(batch) or any(channels) or min(*rows, *columns) < 0:
        return None
    own = node.attributes.get("pads", ())
    attributes = dict(node.attributes)
    if node.op == "average_pool2d":
        if any(own) and not node.attributes["count_padding"]:
            return None
        attributes["count_padding"] = True
    elif node.op not in ("conv2d", "depthwise_conv2d"):
        return None
    more = (*rows, *columns)
    attributes["pads"] = tuple(a + b for a, b in zip(own, more, strict=True))
    return replace(node, inputs=(before.inputs[0], *node.inputs[1:]), attributes=attributes)


def is_zeros(node: Node) -> bool:
    """Whether a pad writes zeros."""
    return bool(node.attributes["mode"] == "constant" and node.attributes["value"] == 0)
