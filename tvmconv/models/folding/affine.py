"""Factors and summands of channels, as batch norm leaves them, go into the filters and biases around."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tvmconv.models.folding.editor import Editor, rewrite
from tvmconv.models.graph import ABSENT, Array, Graph, Node

_ARITHMETIC = ("add", "subtract", "multiply", "divide")
_BEHIND = ("conv2d", "depthwise_conv2d", "dense", "conv2d_transpose")
_IN_FRONT = ("conv2d", "depthwise_conv2d", "dense")


def fold_arithmetic(graph: Graph) -> Graph:
    """Fold arithmetic with constants of channels into the convolution or dense node behind or in front.

    Filters and biases are multiplied in float64 and rounded once to their dtype.
    """
    return rewrite(rewrite(graph, _behind), _in_front)


def _behind(editor: Editor, node: Node) -> Node | None:
    """``node`` is arithmetic on what a convolution made."""
    for data in node.inputs if node.op in _ARITHMETIC else ():
        conv = editor.sole(data, node)
        if conv is None or conv.op not in _BEHIND or not _is_open(editor, conv):
            continue
        line = _line(editor, node, data)
        if line is None:
            return None
        scale, shift = line
        window = editor.constants[conv.inputs[1]].astype(np.float64)
        if conv.op == "depthwise_conv2d":
            window = window * scale.reshape(window.shape[2:])
        else:
            window = window * (scale[:, None] if conv.op == "conv2d_transpose" else scale)
        return _with(editor, conv, node.name, conv.inputs[0], window, shift, scale)
    return None


def _in_front(editor: Editor, node: Node) -> Node | None:
    """``node`` is a convolution of what arithmetic made."""
    if node.op not in _IN_FRONT or node.inputs[1] not in editor.constants:
        return None
    if not _bias_is_constant(editor, node):
        return None
    before = editor.sole(node.inputs[0], node)
    if before is None or before.op not in _ARITHMETIC:
        return None
    data = next((name for name in before.inputs if name not in editor.constants), None)
    line = None if data is None else _line(editor, before, data)
    if data is None or line is None:
        return None
    scale, shift = line
    if np.any(shift != 0) and any(node.attributes.get("pads", ())):
        return None  # padded pixels are zero, not the summand
    window = editor.constants[node.inputs[1]].astype(np.float64)
    added = _per_input(node, shift, window) * window
    return _with(
        editor,
        node,
        node.name,
        data,
        window * _per_input(node, scale, window),
        added.sum(axis=(0, 1)).ravel()
        if node.op == "depthwise_conv2d"
        else added.reshape(-1, window.shape[-1]).sum(axis=0),
        np.ones(()),
    )


def _per_input(node: Node, values: Array, window: Array) -> Array:
    """Values of input channels, as they multiply a filter: [in, out], or [channels, 1] of depthwise."""
    if node.op != "conv2d":
        return values[:, None]
    depth, channels = window.shape[2:]
    grouped = values.reshape(-1, depth)  # of each group
    return np.repeat(grouped, channels // len(grouped), axis=0).T


def _line(editor: Editor, node: Node, data: str) -> tuple[Array, Array] | None:
    """Scale and shift of each channel (the last axis), where ``node`` is that of ``data``."""
    other = node.inputs[0] if node.inputs[1] == data else node.inputs[1]
    if other not in editor.constants or editor.shape(data) != node.tensor.shape:
        return None
    constant = editor.constants[other].astype(np.float64)
    channels = node.tensor.shape[-1]
    if constant.dtype.kind != "f" or constant.size not in (1, channels):
        return None
    if constant.size > 1 and constant.shape[-1] != channels:
        return None
    values = np.broadcast_to(constant.reshape(-1), (channels,))
    ones, zeros = np.ones(channels), np.zeros(channels)
    first = node.inputs[0] == data
    if node.op == "add":
        return ones, values
    if node.op == "subtract":
        return (ones, -values) if first else (-ones, values)
    if node.op == "multiply":
        return values, zeros
    return (1 / values, zeros) if first and np.all(values != 0) else None


def _is_open(editor: Editor, conv: Node) -> bool:
    """Whether a convolution ends with its bias, and its filter and bias are constants."""
    return (
        conv.attributes["activation"] is None
        and not any(conv.inputs[3:])
        and conv.inputs[1] in editor.constants
        and _bias_is_constant(editor, conv)
    )


def _bias_is_constant(editor: Editor, conv: Node) -> bool:
    return len(conv.inputs) < 3 or conv.inputs[2] == ABSENT or conv.inputs[2] in editor.constants


def _with(
    editor: Editor, conv: Node, name: str, data: str, window: Array, shift: Array, scale: Array
) -> Node:
    """The convolution with another filter, and its bias times ``scale`` plus ``shift``."""
    old = editor.constants[conv.inputs[1]]
    bias = shift
    if len(conv.inputs) > 2 and conv.inputs[2] != ABSENT:
        bias = editor.constants[conv.inputs[2]].astype(np.float64) * scale + shift
    inputs = (
        data,
        editor.add_constant(f"{name}/filter", np.ascontiguousarray(window.astype(old.dtype))),
        editor.add_constant(f"{name}/bias", bias.astype(old.dtype)),
        *conv.inputs[3:],
    )
    return replace(conv, name=name, inputs=inputs)
