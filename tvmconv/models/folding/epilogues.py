"""Sums with another image, activations and PRELU go into the convolution in front of them."""

from __future__ import annotations

from dataclasses import replace

from tvmconv.models.folding.editor import Editor, rewrite
from tvmconv.models.folding.padding import is_zeros
from tvmconv.models.graph import ABSENT, Graph, Node
from tvmconv.problem.rules import ACTIVATIONS, FLOAT_DTYPES

_CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
_ACTIVATED = (*_CONVOLUTIONS, "dense", "conv2d_transpose")


def fold_epilogues(graph: Graph) -> Graph:
    """Fold sums, then activations, into convolutions.

    Of two convolutions that feed a sum the later takes the other's output as its residual. Of one that a pad
    fills up with channels of zeros it takes what is padded.
    """
    return rewrite(graph, _folded)


def _folded(editor: Editor, node: Node) -> Node | None:
    if node.op == "add":
        return _residual(editor, node)
    if node.op in ACTIVATIONS:
        return _activation(editor, node)
    if node.op == "prelu":
        return _slopes(editor, node)
    return _narrow(editor, node) if node.op in _CONVOLUTIONS else None


def _residual(editor: Editor, node: Node) -> Node | None:
    if any(
        name in editor.constants or editor.shape(name) != node.tensor.shape for name in node.inputs
    ):
        return None
    convs = [
        conv
        for name in node.inputs
        if (conv := editor.sole(name, node)) is not None
        and conv.op in _CONVOLUTIONS
        and conv.attributes["activation"] is None
        and not any(conv.inputs[3:])
    ]
    if not convs:
        return None
    conv = max(convs, key=lambda each: editor.place[each.name])
    (other,) = (name for name in node.inputs if name != conv.name)
    return _ending(conv, node, other)


def _ending(conv: Node, node: Node, *more: str) -> Node:
    """The convolution in the place of ``node``, with more inputs behind its bias."""
    bias = conv.inputs[2] if len(conv.inputs) > 2 else ABSENT
    return replace(conv, name=node.name, tensor=node.tensor, inputs=(*conv.inputs[:2], bias, *more))


def _activation(editor: Editor, node: Node) -> Node | None:
    conv = editor.sole(node.inputs[0], node)
    if conv is None or conv.op not in _ACTIVATED or conv.attributes["activation"] is not None:
        return None
    if any(conv.inputs[4:]):
        return None
    return replace(conv, name=node.name, attributes={**conv.attributes, "activation": node.op})


def _slopes(editor: Editor, node: Node) -> Node | None:
    data, slopes = node.inputs
    conv = editor.sole(data, node)
    if conv is None or conv.op not in _CONVOLUTIONS or any(conv.inputs[4:]):
        return None
    if node.tensor.dtype not in FLOAT_DTYPES:
        return None
    array, channels = editor.constants.get(slopes), node.tensor.shape[-1]
    if array is None or conv.attributes["activation"] is not None:
        return None
    if array.size != channels or array.shape[-1] != channels:
        return None
    name = editor.add_constant(f"{node.name}/slopes", array.reshape(channels))
    residual = conv.inputs[3] if len(conv.inputs) > 3 else ABSENT
    return _ending(conv, node, residual, name)


def _narrow(editor: Editor, node: Node) -> Node | None:
    residual = node.inputs[3] if len(node.inputs) > 3 else ABSENT
    pad = editor.nodes.get(residual)
    if pad is None or pad.op != "pad" or not is_zeros(pad):
        return None
    *others, (front, behind) = pad.attributes["pads"]
    if any(map(any, others)) or front or behind < 0:
        return None
    inputs = (*node.inputs[:3], pad.inputs[0], *node.inputs[4:])
    return replace(node, inputs=inputs)
