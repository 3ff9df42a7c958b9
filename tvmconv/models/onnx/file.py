"""What a .onnx file says, as plain values: the one place that knows its messages.

A file may come from anywhere: bytes that are no message, constants of another length than their shape and
data outside the model's folder are ModelErrors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from tvmconv.errors import ModelError
from tvmconv.models.graph import Array

OLDEST_OPSET: Final = 7  # below, broadcasting has attributes
NEWEST_OPSET: Final = onnx.defs.onnx_opset_version()
_DOMAINS: Final = ("", "ai.onnx")
_HIGHEST_RANK: Final = 8
_DTYPES: Final = {
    getattr(onnx.TensorProto, name.upper()): dtype
    for name, dtype in {
        "float": "float32", "float16": "float16", "double": "float64", "int8": "int8", "int16": "int16",
        "int32": "int32", "int64": "int64", "uint8": "uint8", "uint16": "uint16", "uint32": "uint32",
        "uint64": "uint64", "bool": "bool",
    }.items()
}  # fmt: skip


@dataclass(frozen=True)
class FileInput:
    """An input of the model: None where an extent is not known."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class FileNode:
    """An operator: names of values, empty for those that are absent, and attributes as plain values."""

    kind: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class File:
    """The main graph of the file."""

    opset: int
    constants: Mapping[str, Array]
    inputs: tuple[FileInput, ...]
    nodes: tuple[FileNode, ...]
    outputs: tuple[str, ...]


@contextmanager
def damage(where: str) -> Iterator[None]:
    """Turn what Python raises on a damaged file into a ModelError."""
    try:
        yield
    except (
        IndexError, TypeError, ValueError, ArithmeticError, AttributeError, KeyError, DecodeError,
    ) as error:  # fmt: skip
        raise ModelError(
            f"{where}: the file is truncated or damaged, or no .onnx file ({error}). Get or export it again."
        ) from error


def dtype_name(number: int) -> str:
    """NumPy's name of a dtype; ValueError for one that is not supported."""
    if number not in _DTYPES:
        names = {value: key.lower() for key, value in onnx.TensorProto.DataType.items()}
        raise ValueError(f"the dtype {names.get(number, number)} is not supported")
    return _DTYPES[number]


def parse(content: bytes, name: str, folder: Path | None) -> File:
    """Read the bytes of a .onnx file.

    Args:
        content: of the file.
        name: for messages.
        folder: of the file, where constants may lie in files of their own; None: there are none.

    Raises:
        ModelError: the file is damaged, or needs a newer reader.
    """
    with damage(name):
        model = onnx.ModelProto.FromString(content)
        graph = model.graph
        opset = _opset(model, name)
        constants = {each.name: _array(each, folder) for each in graph.initializer}
        inputs = tuple(_input(each) for each in graph.input if each.name not in constants)
        nodes = tuple(_node(each, folder) for each in graph.node)
        outputs = tuple(each.name for each in graph.output)
    if not outputs:
        raise ModelError(
            f"{name}: the file is truncated or damaged: it has no outputs. Get or export it again."
        )
    if graph.sparse_initializer:
        raise ModelError(f"{name}: sparse constants are not supported. Make them dense.")
    return File(opset, constants, inputs, nodes, outputs)


def _opset(model: Any, name: str) -> int:
    versions = [each.version for each in model.opset_import if each.domain in _DOMAINS]
    if len(versions) != 1:
        raise ValueError(f"it names {len(versions)} opsets of ONNX")
    if not OLDEST_OPSET <= versions[0] <= NEWEST_OPSET:
        raise ModelError(
            f"{name}: its opset is {versions[0]}, but {OLDEST_OPSET} to {NEWEST_OPSET} are supported. "
            "Convert it with onnx.version_converter, or export it again."
        )
    return int(versions[0])


def _input(value: Any) -> FileInput:
    if value.type.WhichOneof("value") != "tensor_type":
        raise ValueError(f"the input {value.name!r} is no tensor")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise ValueError(f"the input {value.name!r} has no shape")
    shape = tuple(
        extent.dim_value if extent.HasField("dim_value") and extent.dim_value > 0 else None
        for extent in tensor.shape.dim
    )
    if len(shape) > _HIGHEST_RANK:
        raise ValueError(f"the input {value.name!r} has {len(shape)} axes")
    return FileInput(value.name, shape, dtype_name(tensor.elem_type))


def _node(node: Any, folder: Path | None) -> FileNode:
    return FileNode(
        node.op_type,
        "" if node.domain in _DOMAINS else node.domain,
        node.name,
        tuple(node.input),
        tuple(node.output),
        {each.name: _attribute(each, folder) for each in node.attribute},
    )


def _attribute(attribute: Any, folder: Path | None) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return _array(value, folder)
    return value


def _array(tensor: Any, folder: Path | None) -> Array:
    """The value of a constant; ValueError where its bytes do not fit its shape."""
    dtype, shape = dtype_name(tensor.data_type), tuple(tensor.dims)
    if len(shape) > _HIGHEST_RANK or min(shape, default=0) < 0:
        raise ValueError(f"the constant {tensor.name!r} has the shape {shape}")
    size = prod(shape) * np.dtype(dtype).itemsize
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        content = _external(tensor, folder, size)
        return (
            np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)
        )
    return np.asarray(numpy_helper.to_array(tensor), order="C").reshape(shape)


def _external(tensor: Any, folder: Path | None, size: int) -> bytes:
    """Bytes of a constant in a file beside the model's, or below its folder."""
    entries = {each.key: each.value for each in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ValueError(f"the constant {tensor.name!r} lies in the file {location!r}: give a path")
    path = (folder / location).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise ValueError(
            f"the constant {tensor.name!r} lies in {location!r}, which is no file in the model's folder"
        )
    offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    if length != size or offset < 0 or offset + size > path.stat().st_size:
        raise ValueError(f"the constant {tensor.name!r} has {length} bytes at {offset}, not {size}")
    with path.open("rb") as stream:
        stream.seek(offset)
        return bytes(stream.read(size))
