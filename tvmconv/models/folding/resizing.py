"""Convolutions of one pixel go in front of the resize that makes more pixels of their data."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from tvmconv.models.folding.editor import Editor, rewrite
from tvmconv.models.graph import Graph, Node

# Of the data: fewer make a convolution cheaper than the channels that it may add to the resize.
_LEAST_CHANNELS = 8


def enlarge_last(graph: Graph) -> Graph:
    """Let 1x1 convolutions compute the pixels before they are resized, of which there are fewer.

    A resized pixel is a sum of pixels whose weights add up to 1, so it does not matter whether channels are
    mixed and the bias is added before or behind; rounding differs. An enlargement by 2 leaves a quarter of
    the convolution's work.
    """
    return rewrite(graph, _swapped)


def _swapped(editor: Editor, node: Node) -> Node | None:
    if node.op != "conv2d" or any(node.inputs[3:]) or node.attributes["activation"] is not None:
        return None
    window, resize = editor.shape(node.inputs[1]), editor.sole(node.inputs[0], node)
    if resize is None or resize.op != "resize" or _reaches_out(node, window):
        return None
    (batch, rows, columns, depth) = small = editor.shape(resize.inputs[0])
    if prod(small) >= prod(resize.tensor.shape) or window[2] != depth or depth < _LEAST_CHANNELS:
        return None
    tensor = replace(node.tensor, shape=(batch, rows, columns, window[3]))
    # Each takes the other's name: what reads the convolution reads the resize now, and nothing else did that.
    editor.replace(
        replace(node, name=resize.name, inputs=(resize.inputs[0], *node.inputs[1:]), tensor=tensor)
    )
    return replace(
        resize, name=node.name, inputs=(resize.name,), tensor=node.tensor, place=resize.place
    )


def _reaches_out(node: Node, window: tuple[int, ...]) -> bool:
    """Whether an output pixel depends on others than the one at its place."""
    return (
        window[:2] != (1, 1) or node.attributes["strides"] != (1, 1) or any(node.attributes["pads"])
    )
