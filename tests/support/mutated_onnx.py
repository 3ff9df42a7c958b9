"""Damaged .onnx files: changes of a sound one's bytes, or of the numbers and names in its messages."""

from __future__ import annotations

from random import Random

import pytest

onnx = pytest.importorskip("onnx")
_BYTES = (b"\xff", b"\x80\x80\x80\x01", b"\x00", b"\xff" * 9 + b"\x01", b"\x7f")
_NUMBERS = (0, -1, 1, 2, 3, 7, 255, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, -(2**63))
_FLOATS = (0, -1, 2, 1e30, float("inf"), float("nan"))
_KINDS = (
    "Reshape",
    "Conv",
    "Gather",
    "Resize",
    "Split",
    "Pad",
    "Tile",
    "Slice",
    "MatMul",
    "Concat",
)


def change_bytes(content: bytes, rng: Random) -> bytes:
    """Change one to four places, or cut off the end."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed))
        kind = rng.randrange(6)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.randrange(256)
        elif kind == 2:
            changed[at : at + 1] = rng.choice(_BYTES)
        elif kind == 3:
            other, length = rng.randrange(len(content)), rng.choice((1, 4, 16))
            changed[at : at + length] = content[other : other + length]
        elif kind == 4:
            del changed[at : at + rng.choice((1, 2, 8))]
        elif rng.random() < 0.1:
            del changed[max(at, 1) :]
    return bytes(changed)


def change_message(content: bytes, rng: Random) -> bytes:
    """Change one to three numbers, names or operators; the file stays one that can be parsed."""
    model = onnx.load_from_string(content)
    for _ in range(rng.randint(1, 3)):
        rng.choice((_constant, _attribute, _input, _name, _kind))(model.graph, rng)
    return model.SerializeToString()


def _constant(graph, rng):
    if not graph.initializer:
        return
    tensor = rng.choice(graph.initializer)
    if tensor.data_type == onnx.TensorProto.INT64 and len(tensor.raw_data) >= 8:
        at = 8 * rng.randrange(len(tensor.raw_data) // 8)
        number = (rng.choice(_NUMBERS) % 2**64).to_bytes(8, "little")
        tensor.raw_data = tensor.raw_data[:at] + number + tensor.raw_data[at + 8 :]
    elif tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_NUMBERS)


def _attribute(graph, rng):
    node = rng.choice(graph.node)
    if not node.attribute:
        return
    attribute = rng.choice(node.attribute)
    if attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(_NUMBERS)
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = rng.choice(_NUMBERS)
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = rng.choice(_FLOATS)


def _input(graph, rng):
    extents = rng.choice(graph.input).type.tensor_type.shape.dim
    if extents:
        rng.choice(extents).dim_value = rng.choice(_NUMBERS)


def _name(graph, rng):
    node = rng.choice(graph.node)
    if node.input:
        names = [name for each in graph.node for name in (*each.input, *each.output)]
        node.input[rng.randrange(len(node.input))] = rng.choice(names)


def _kind(graph, rng):
    node = rng.choice(graph.node)
    node.op_type = rng.choice([*_KINDS, *(each.op_type for each in graph.node)])
