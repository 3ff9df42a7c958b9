"""A graph as calls of compiled functions: convolutions by their schedules, groups of the rest."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from tvmconv.errors import ModelError
from tvmconv.hardware import Function, Machine
from tvmconv.models.graph import ABSENT, Graph, Node, Tensor
from tvmconv.models.operators import REDUCTIONS
from tvmconv.models.program import Call, Packing, Program
from tvmconv.models.rest import matrix_vector, single
from tvmconv.models.rest.fused import FUSIBLE, fused_function, fused_reduction, group_of
from tvmconv.models.rest.pointwise import POINTWISE
from tvmconv.models.rest.rearranging import READ_ONCE
from tvmconv.models.rest.turning import TURNING
from tvmconv.problem.rules import PRELU
from tvmconv.problem.spec import ConvSpec

QUANTIZED = ("quantized_conv2d", "quantized_depthwise_conv2d")
CONVOLUTIONS = ("conv2d", "depthwise_conv2d", *QUANTIZED)
_LONGEST_SYMBOL = 60


def convolutions(graph: Graph) -> dict[str, ConvSpec]:
    """Return the spec of each convolution, by the name of its node."""
    return {node.name: _spec(graph, node) for node in graph.nodes if node.op in CONVOLUTIONS}


def _spec(graph: Graph, node: Node) -> ConvSpec:
    data, window = (graph.tensor(name) for name in node.inputs[:2])
    quantized = node.op in QUANTIZED
    inputs = node.inputs[:3] if quantized else node.inputs
    _, _, bias, residual, slopes = [*inputs, *[ABSENT] * 3][:5]
    added = node.tensor.shape[3] if residual == ABSENT else graph.tensor(residual).shape[3]
    top, bottom, left, right = node.attributes["pads"]
    make = ConvSpec.depthwise_conv2d if "depthwise" in node.op else ConvSpec.conv2d
    try:
        return make(
            data.shape,
            window.shape,
            strides=node.attributes["strides"],
            padding=[[0, 0], [top, bottom], [left, right], [0, 0]],
            dilations=node.attributes["dilations"],
            dtype=data.dtype,
            bias=bias != ABSENT,
            activation=node.attributes.get("activation") if slopes == ABSENT else PRELU,
            residual=residual != ABSENT,
            residual_channels=added if added < node.tensor.shape[3] else None,
            quantized=node.tensor.dtype if quantized else None,
        )
    except (ValueError, TypeError) as error:
        raise ModelError(f"{node.place or node.name}: {error}") from error


def partition(
    graph: Graph, specs: Mapping[str, ConvSpec], functions: Mapping[str, Function], machine: Machine
) -> Program:
    """Return the calls that compute a graph.

    ``specs`` are `convolutions` of it, ``functions`` their scheduled functions by key.
    """
    program = Program(graph)
    for name in (*graph.inputs, *graph.constants, *graph.makers):
        program.tensors[name] = graph.tensor(name)
    program.constants.update(graph.constants)
    for nodes in _groups(graph):
        node = nodes[-1]
        if 0 in node.tensor.shape:
            continue
        if node.op in CONVOLUTIONS:
            _call_convolution(program, node, specs[node.name], functions)
        elif node.op == "reshape":
            program.views[node.name] = (node.inputs[0], 0)
        elif len(nodes) == 1 and node.op in TURNING:
            _call_single(program, node, machine)
        elif node.op in FUSIBLE:
            group = group_of(graph, nodes)
            make = functools.partial(fused_function, group, machine)
            _call(program, nodes, group.signature, group.inputs, make)
        elif len(nodes) > 1:
            group = group_of(graph, nodes)
            make = functools.partial(fused_reduction, group, machine)
            _call(program, nodes, group.signature, group.inputs, make)
        elif node.op == "dense":
            _call_dense(program, node, machine)
        elif not (node.op == "concat" and _joined_in_place(program, node)):
            _call_single(program, node, machine)
    _copy_outputs(program, machine)
    return program


def _groups(graph: Graph) -> list[list[Node]]:
    """Cut a graph into functions: element by element what has one reader joins its reader."""
    users, outputs = graph.users, set(graph.outputs.values())
    last: dict[str, str] = {}  # node -> the node whose function it is in
    for node in reversed(graph.nodes):
        last[node.name] = node.name
        readers = users.get(node.name, [])
        if node.op in FUSIBLE and len(readers) == 1 and node.name not in outputs:
            reader = readers[0]
            if _joins(node, reader):
                last[node.name] = last[reader.name]
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes:
        groups.setdefault(last[node.name], []).append(node)
    # A function is called where its last node stands: what it reads is there by then.
    return [groups[node.name] for node in graph.nodes if node.name in groups]


def _joins(node: Node, reader: Node) -> bool:
    """Whether ``node`` may be computed where ``reader``, its only one, reads it."""
    if reader.op in REDUCTIONS:
        # At least two extents that are no 1: what is left is scheduled as an image's axes are.
        return node.op in POINTWISE and sum(extent > 1 for extent in node.tensor.shape) > 1
    if reader.op not in FUSIBLE or reader.inputs.count(node.name) != 1:
        return False
    if reader.op in POINTWISE:
        # Broadcast, it would be computed again and again.
        return node.tensor.shape == reader.tensor.shape
    return reader.op in READ_ONCE or (reader.op == "pad" and node.op in POINTWISE)


def _call_convolution(
    program: Program, node: Node, spec: ConvSpec, functions: Mapping[str, Function]
) -> None:
    data, window, *extra = node.inputs
    function = functions[spec.key]
    weights = window
    if function.pack is not None:
        weights = f"{window} packed for {spec.key}"
        program.tensors[weights] = Tensor(function.packed_shape, function.packed_dtype)
        if window in program.constants:
            program.constants[weights] = Packing(window, spec.key)
        elif weights not in {call.result for call in program.calls}:
            program.calls.append(Call(f"{spec.key}__pack", (window,), weights, (node,)))
    present = [name for name in extra if name != ABSENT]
    inputs = (data, weights, *present)
    program.calls.append(Call(spec.key, inputs, node.name, (node,), spec.key))


def _call(
    program: Program,
    nodes: Sequence[Node],
    signature: str,
    inputs: Sequence[str],
    make: Callable[[], Any],
) -> None:
    """Add a call of the function of that signature, which is made unless it is there."""
    symbol = program.symbols.get(signature)
    if symbol is None:
        what = "_".join(dict.fromkeys(node.op for node in nodes))[:_LONGEST_SYMBOL]
        symbol = f"{what}_{len(program.symbols)}"
        program.symbols[signature] = symbol
        program.rest[symbol] = make()
    program.calls.append(Call(symbol, tuple(inputs), nodes[-1].name, tuple(nodes)))


def _call_single(program: Program, node: Node, machine: Machine) -> None:
    maker = single.MAKERS.get(node.op)
    if maker is None:
        raise ModelError(f"{node.place or node.name}: {node.op} cannot be compiled")
    tensors = [program.tensors[name] for name in node.present]
    signature = repr((node.op, tensors, node.tensor, sorted(node.attributes.items())))
    make = functools.partial(maker, node, tensors, machine)
    _call(program, [node], signature, node.present, make)


def _call_dense(program: Program, node: Node, machine: Machine) -> None:
    """One row times a matrix, which is packed here: bound by memory, so by how the matrix lies in it."""
    data, window, *bias = node.present
    tensors = [program.tensors[name] for name in (data, window, *bias)]
    block = matrix_vector.block(tensors[1].shape[1], tensors[1].dtype, machine)
    packed = f"{window} in blocks of {block}"
    array = matrix_vector.packed(program.graph.constants[window], block)
    program.constants[packed] = array
    program.tensors[packed] = Tensor(array.shape, tensors[1].dtype)
    signature = repr((node.op, tensors, node.attributes["activation"]))
    make = functools.partial(matrix_vector.function, node, tensors, machine)
    _call(program, [node], signature, (data, packed, *bias), make)


def _joined_in_place(program: Program, node: Node) -> bool:
    """Whether the parts of a concatenation can be computed where they end up, without a copy.

    That is so where they lie one behind the other there, and are values of functions that nothing
    else says where to put.
    """
    shape, axis = node.tensor.shape, node.attributes["axis"]
    if prod(shape[:axis]) != 1:
        return False
    homes = [program.home(name) for name in node.inputs]
    made = {call.result for call in program.calls}
    outputs = {program.home(name)[0] for name in program.graph.outputs.values()}
    free = all(
        offset == 0
        and home in made
        and home not in outputs
        and program.tensors[home].bytes == program.tensors[name].bytes
        for name, (home, offset) in zip(node.inputs, homes, strict=True)
    )
    if not free or len({home for home, _ in homes}) != len(homes):
        return False
    offset = 0
    for home, _ in homes:
        program.views[home] = (node.name, offset)
        offset += program.tensors[home].bytes
    return True


def _copy_outputs(program: Program, machine: Machine) -> None:
    """Add copies of outputs that are not made by a function of their own, but lie in another value."""
    made = {call.result for call in program.calls}
    for name in dict.fromkeys(program.graph.outputs.values()):
        home, _ = program.home(name)
        if name in made and home == name:
            continue
        tensor = program.tensors[name]
        whole = program.tensors[home].bytes == tensor.bytes
        others = set(program.graph.outputs.values()) - {name}
        made_here = home in made or any(home == program.home(part)[0] for part in made)
        if whole and made_here and home not in others and home not in program.placed:
            program.placed[home] = name
            continue
        copy = Node(f"{name} copied", "copy", (name,), tensor)
        signature = repr(("copy", tensor))
        make = functools.partial(single.copy, tensor, machine)
        _call(program, [copy], signature, (name,), make)
        program.placed[copy.name] = name
        program.tensors[copy.name] = tensor
