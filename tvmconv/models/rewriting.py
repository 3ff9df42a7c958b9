"""Expresses what there is no function for by what there is one for: a pass from graph to graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, Final

import numpy as np

from tvmconv.errors import ModelError
from tvmconv.models import operators
from tvmconv.models.graph import ABSENT, Array, Graph, Node, Tensor
from tvmconv.problem.rules import ACTIVATIONS


class _Rewriting:
    """The nodes and constants that take the place of a graph's."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}
        self._tensors: dict[str, Tensor] = {}

    def tensor(self, name: str) -> Tensor:
        """Shape and dtype of an old or a new value."""
        return self._tensors.get(name) or self.graph.tensor(name)

    def constant(self, name: str, array: Array) -> str:
        """Add a constant, once."""
        if name not in self.constants:
            self.constants[name] = array
            self._tensors[name] = Tensor(array.shape, array.dtype.name)
        return name

    def node(
        self, old: Node, op: str, inputs: Sequence[str], step: str = "", **attributes: Any
    ) -> str:
        """Add a node of the old one's place; without ``step`` it makes the old one's value."""
        shapes = [self.tensor(name).shape if name != ABSENT else None for name in inputs]
        shape = operators.infer_shape(op, shapes, attributes, old.place)
        tensor = Tensor(shape, old.tensor.dtype)
        name = f"{old.name} {step}" if step else old.name
        self.nodes.append(Node(name, op, tuple(inputs), tensor, attributes, old.place))
        self._tensors[name] = tensor
        return name


def rewritten(graph: Graph) -> Graph:
    """Return the same model in operators that `partition` has functions for.

    What a rule makes may have a rule of its own: passes go on until nothing changes.
    """
    done = _distinct_outputs(graph)
    changed = True
    while changed:
        work = _Rewriting(done)
        changed = False
        for node in done.nodes:
            rule = _RULES.get(node.op)
            if rule is not None and rule(work, node):
                changed = True
            else:
                work.nodes.append(node)
        done = done.with_nodes(work.nodes, work.constants)
    return done


def _distinct_outputs(graph: Graph) -> Graph:
    """Give an output that is the same value as another one, or as an input, a value of its own."""
    nodes, outputs = list(graph.nodes), dict[str, str]()
    for public, name in graph.outputs.items():
        if name in outputs.values() or name in graph.inputs:
            tensor = graph.tensor(name)
            nodes.append(
                Node(f"{name} as {public}", "reshape", (name,), tensor, {"shape": tensor.shape})
            )
            name = nodes[-1].name
        outputs[public] = name
    return replace(graph, nodes=tuple(nodes), outputs=outputs)


def _convolution(work: _Rewriting, node: Node) -> bool:
    """Unusual activations follow the convolution."""
    activation = node.attributes["activation"]
    if activation is None or activation in ACTIVATIONS:
        return False
    attributes = {**node.attributes, "activation": None}
    made = work.node(node, node.op, node.inputs, "sums", **attributes)
    work.node(node, activation, [made])
    return True


def _dense(work: _Rewriting, node: Node) -> bool:
    """Several rows are a 1x1 convolution; one stays; a matrix that is computed is a matmul."""
    data, window, bias = [*node.inputs, ABSENT][:3]
    activation = node.attributes["activation"]
    shape, (depth, channels) = work.tensor(data).shape, work.tensor(window).shape
    if window not in work.graph.constants:
        flat = work.node(node, "reshape", [data], "rows", shape=(prod(shape[:-1]), depth))
        made = work.node(
            node, "matmul", [flat, window], "product", transpose_a=False, transpose_b=False
        )
        if bias != ABSENT:
            made = work.node(node, "add", [made, bias], "sums")
        if activation is not None:
            made = work.node(node, activation, [made], "activated")
        work.node(node, "reshape", [made], shape=node.tensor.shape)
        return True
    rows = prod(shape[:-1])
    usual = activation is None or activation in ACTIVATIONS
    if not usual:
        made = work.node(node, "dense", [data, window, bias], "sums", activation=None)
        work.node(node, activation, [made])
        return True
    if rows == 1:
        return False
    pixels = work.node(node, "reshape", [data], "pixels", shape=(1, 1, rows, depth))
    matrix = work.graph.constants[window].reshape(1, 1, depth, channels)
    kernel = work.constant(f"{window} as 1x1", matrix)
    made = work.node(
        node, "conv2d", [pixels, kernel, bias], "channels", activation=activation, **_ONE_BY_ONE
    )
    work.node(node, "reshape", [made], shape=node.tensor.shape)
    return True


_ONE_BY_ONE: Final[Mapping[str, Any]] = {
    "strides": (1, 1),
    "pads": (0, 0, 0, 0),
    "dilations": (1, 1),
}


def _slice(work: _Rewriting, node: Node) -> bool:
    """A slice that is all of its input is the input."""
    if (
        node.tensor.shape != work.tensor(node.inputs[0]).shape
        or min(node.attributes["strides"]) < 0
    ):
        return False
    work.node(node, "reshape", node.inputs, shape=node.tensor.shape)
    return True


def _matmul(work: _Rewriting, node: Node) -> bool:
    """A product with a constant matrix is dense."""
    left, right = node.inputs
    matrix = work.graph.constants.get(right)
    if matrix is None or matrix.ndim != 2 or node.attributes["transpose_a"]:
        return False
    if not np.issubdtype(matrix.dtype, np.floating):
        return False
    if node.attributes["transpose_b"]:
        right = work.constant(f"{right} transposed", np.ascontiguousarray(matrix.T))
    work.node(node, "dense", [left, right], activation=None)
    return True


def _transposed(work: _Rewriting, node: Node) -> bool:
    """A transposed convolution of stride s is one convolution for each remainder of a place by s.

    With y + top = s * q + r, output row y sums up data[q - j] * filter[s * j + r] over j: the taps are those
    of the filter that are s apart. Where each remainder has as many, or more work is saved otherwise, all are
    one convolution to s * s times the channels, with zeros for the taps that some lack, and depth_to_space;
    with a window as large as the stride, of 1x1.
    """
    data, window, bias = [*node.inputs, ABSENT][:3]
    weights = work.graph.constants.get(window)
    if weights is None:
        raise ModelError(f"{node.place or node.name}: the filter of {node.op} must be constant")
    (sh, sw), (top, _, left, _) = node.attributes["strides"], node.attributes["pads"]
    (batch, *_), (kh, kw, channels, _) = work.tensor(data).shape, weights.shape
    size = node.attributes["size"]
    taps = (-(-kh // sh), -(-kw // sw))
    if _is_worth_parts(weights.shape, (sh, sw), taps):
        made = _one_by_one(work, node, weights)
    else:
        grid = np.zeros((taps[0] * sh, taps[1] * sw, *weights.shape[2:]), weights.dtype)
        grid[:kh, :kw] = weights
        # [tap, remainder, tap, remainder, out, in] -> [tap, tap, remainder, remainder, out, in]
        split = grid.reshape(taps[0], sh, taps[1], sw, *weights.shape[2:]).swapaxes(1, 2)
        wide = split.reshape(*taps, sh * sw * channels, -1)
        made = _remainder(work, node, wide, bias, sh * sw, "by remainder")
        made = _interleaved(work, node, made, (sh, sw), channels)
    begin, end = (0, top, left, 0), (batch, top + size[0], left + size[1], channels)
    work.node(node, "slice", [made], begin=begin, end=end, strides=(1, 1, 1, 1))
    return True


# Channels of a pixel, which are copied at a time where remainders are joined.
_LEAST_TO_JOIN: Final = 8


def _is_worth_parts(
    window: tuple[int, ...], strides: tuple[int, int], taps: tuple[int, int]
) -> bool:
    """Whether a convolution for each remainder is less work: of 3x3 taps and stride 2, 9 products for 16.

    3x3 taps of all remainders together are left to Winograd's algorithm: from 32 channels to 16, 5x5 and
    stride 2, 72 us where four convolutions take 111.
    """
    ragged = any(extent % stride for extent, stride in zip(window, strides, strict=False))
    each_has_some = window[0] >= strides[0] and window[1] >= strides[1]
    return ragged and each_has_some and taps != (3, 3) and window[2] >= _LEAST_TO_JOIN


def _one_by_one(work: _Rewriting, node: Node, weights: Array) -> str:
    """Return the value of convolutions of each remainder, whose pixels and rows are joined by turns."""
    (sh, sw), bias = node.attributes["strides"], [*node.inputs, ABSENT][2]
    lines = []
    for row in range(sh):
        parts = [
            _remainder(
                work, node, weights[row::sh, column::sw], bias, 1, f"remainder {row} {column}"
            )
            for column in range(sw)
        ]
        line = _joined(work, node, parts, f"row {row}", 3)
        batch, rows, columns, wide = work.tensor(line).shape
        flat = (batch * rows, 1, columns * wide)
        lines.append(work.node(node, "reshape", [line], f"flat row {row}", shape=flat))
    made = _joined(work, node, lines, "rows", 1)
    image = (batch, rows * sh, columns * sw, wide // sw)
    return work.node(node, "reshape", [made], "interleaved", shape=image)


def _joined(work: _Rewriting, node: Node, parts: Sequence[str], step: str, axis: int) -> str:
    return work.node(node, "concat", parts, step, axis=axis) if len(parts) > 1 else parts[0]


def _remainder(
    work: _Rewriting, node: Node, weights: Array, bias: str, copies: int, step: str
) -> str:
    """Return the convolution of data[q - j] with weights[j], of filters [height, width, out, in]."""
    data, window = node.inputs[:2]
    (sh, sw), (top, _, left, _) = node.attributes["strides"], node.attributes["pads"]
    size, (_, height, width, _) = node.attributes["size"], work.tensor(data).shape
    kernel = np.ascontiguousarray(weights[::-1, ::-1].swapaxes(2, 3))
    inputs = [data, work.constant(f"{window} {step}", kernel)]
    if bias != ABSENT:
        wide = np.tile(work.graph.constants[bias], copies)
        inputs.append(work.constant(f"{bias} {step}", wide))
    # Beyond the whole result, padding of the data gives the zeros.
    blocks = (-(-(top + size[0]) // sh), -(-(left + size[1]) // sw))
    pads = (
        weights.shape[0] - 1,
        max(blocks[0] - height, 0),
        weights.shape[1] - 1,
        max(blocks[1] - width, 0),
    )
    attributes = {"strides": (1, 1), "pads": pads, "dilations": (1, 1)}
    activation = node.attributes["activation"]
    return work.node(node, "conv2d", inputs, step, **attributes, activation=activation)


def _interleaved(
    work: _Rewriting, node: Node, made: str, strides: tuple[int, int], channels: int
) -> str:
    """Return the value whose pixels are the remainders of each block."""
    (sh, sw), (batch, rows, columns, _) = strides, work.tensor(made).shape
    if strides == (1, 1):
        return made
    if sh == sw:
        return work.node(node, "depth_to_space", [made], "interleaved", block=sh)
    blocks = (batch, rows, columns, sh, sw, channels)
    made = work.node(node, "reshape", [made], "blocks", shape=blocks)
    made = work.node(node, "transpose", [made], "turned", permutation=(0, 1, 3, 2, 4, 5))
    image = (batch, rows * sh, columns * sw, channels)
    return work.node(node, "reshape", [made], "interleaved", shape=image)


_RULES: Final[Mapping[str, Callable[[_Rewriting, Node], bool]]] = {
    "conv2d": _convolution,
    "depthwise_conv2d": _convolution,
    "dense": _dense,
    "matmul": _matmul,
    "slice": _slice,
    "conv2d_transpose": _transposed,
}
