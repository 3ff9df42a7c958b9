"""Filters lose the rows and columns that see only padding, as at the end of a pyramid of dilations (ASPP)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tvmconv.models.folding.editor import Editor, rewrite
from tvmconv.models.graph import Graph, Node
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.taps import seeing


def drop_unseen_taps(graph: Graph) -> Graph:
    """Leave out of constant filters what multiplies nothing but zeros; values stay, to the last bit."""
    return rewrite(graph, _smaller)


def _smaller(editor: Editor, node: Node) -> Node | None:
    if node.op not in ("conv2d", "depthwise_conv2d") or node.inputs[1] not in editor.constants:
        return None
    window = editor.constants[node.inputs[1]]
    top, bottom, left, right = node.attributes["pads"]
    make = ConvSpec.conv2d if node.op == "conv2d" else ConvSpec.depthwise_conv2d
    try:
        spec = make(
            editor.shape(node.inputs[0]),
            window.shape,
            node.attributes["strides"],
            [[0, 0], [top, bottom], [left, right], [0, 0]],
            dilations=node.attributes["dilations"],
        )
    except (ValueError, TypeError):
        return None  # compiling says what is wrong with it
    smaller, taps = seeing(spec)
    if smaller == spec:
        return None
    name = editor.add_constant(f"{node.inputs[1]}/seen", np.ascontiguousarray(window[taps]))
    attributes = {**node.attributes, "pads": smaller.pads, "dilations": smaller.dilations}
    return replace(node, inputs=(node.inputs[0], name, *node.inputs[2:]), attributes=attributes)
