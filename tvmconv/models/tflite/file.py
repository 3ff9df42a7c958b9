"""What a .tflite file says, as plain values: the one place that follows offsets of the flatbuffer.

The format is schema.fbs of TensorFlow Lite, version 3. A file may come from anywhere: each offset that leads
out of it, each count that its size cannot hold and each constant of another length than its shape is a
ModelError. Constants are views of the file's bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
import tflite

from tvmconv.errors import ModelError
from tvmconv.models.graph import Array
from tvmconv.models.tflite.sparse import densify

IDENTIFIER: Final = b"TFL3"
_HIGHEST_RANK: Final = 8  # more than any operator takes
# Tables may share what they point at, so that a small file could unfold to a huge one. None that a
# converter writes reads even its own size twice.
_READ_FACTOR: Final = 4
_READ_ALWAYS: Final = 1 << 20
_DTYPES: Final = {
    getattr(tflite.TensorType, name.upper()): name
    for name in (
        "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
        "uint64", "bool",
    )
}  # fmt: skip
_TYPE_NAMES: Final = {
    number: name.lower() for name, number in vars(tflite.TensorType).items() if name.isupper()
}
_OPERATOR_NAMES: Final = {
    number: name for name, number in vars(tflite.BuiltinOperator).items() if name.isupper()
}
_OPTIONS: Final = {
    number: name for name, number in vars(tflite.BuiltinOptions).items() if name[0].isupper()
}
# A table without fields: four bytes of vtable, then the table, which points back at it. Stands for
# options that are not there, whose fields all have their defaults.
_NO_OPTIONS: Final = struct.pack("<HHi", 4, 4, 4), 4


@dataclass(frozen=True, eq=False)
class FileQuantization:
    """What the integers of a tensor stand for: scale * (integer - zero point).

    Attributes:
        scales: float32, one or one for each index along ``axis``.
        zero_points: int64, as many.
        axis: of the tensor.
    """

    scales: Array
    zero_points: Array
    axis: int

    def __eq__(self, other: object) -> bool:
        """Whether integers stand for the same numbers."""
        if not isinstance(other, FileQuantization):
            return NotImplemented
        return np.array_equal(self.scales, other.scales) and np.array_equal(
            self.zero_points, other.zero_points
        )


@dataclass(frozen=True)
class FileTensor:
    """A tensor of the file.

    Attributes:
        name: as the file has it; may be empty, or another tensor's too.
        shape: with 1 where an extent is not known.
        signature: the same with -1 there.
        dtype: NumPy's name, or TensorFlow Lite's where NumPy has none.
        quantization: what its integers stand for, None where they are what they are.
        variable: whether it keeps its value from one run to the next.
        constant: its value, where the file has it.
    """

    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: str
    quantization: FileQuantization | None
    variable: bool
    constant: Array | None


@dataclass(frozen=True)
class FileOperator:
    """An operator of the file.

    Attributes:
        kind: as `tflite.BuiltinOperator` spells it; a custom one's own name.
        custom: whether it is a custom one.
        inputs: numbers of tensors, -1 for an absent one.
        outputs: numbers of tensors.
        options: of the class of that name, a table of the flatbuffer.
        custom_options: bytes of a custom operator.
    """

    kind: str
    custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Callable[[str], Any]
    custom_options: bytes


@dataclass(frozen=True)
class File:
    """The first subgraph of the file, which is the model."""

    tensors: tuple[FileTensor, ...]
    operators: tuple[FileOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@contextmanager
def damage(where: str) -> Iterator[None]:
    """Turn what Python's flatbuffers raises on a damaged file into a ModelError."""
    try:
        yield
    except (
        struct.error, IndexError, TypeError, ValueError, ArithmeticError, AttributeError, KeyError,
    ) as error:  # fmt: skip
        raise ModelError(
            f"{where}: the file is truncated or damaged, or of a format newer than TFL3 ({error}). "
            "Get or convert it again."
        ) from error


def parse(content: bytes, name: str) -> File:
    """Read the bytes of a .tflite file; ``name`` is for messages. Raises ModelError."""
    if content[4:8] != IDENTIFIER:
        raise ModelError(
            f"{name}: not a .tflite file: its bytes 4 to 7 are {content[4:8]!r}, not {IDENTIFIER!r}"
        )
    with damage(name):
        return _Parser(content, name).file()


class _Parser:
    def __init__(self, content: bytes, name: str) -> None:
        self.content = content
        self.name = name
        self.left = _READ_FACTOR * len(content) + _READ_ALWAYS
        self.model = tflite.Model.GetRootAsModel(content, 0)

    def file(self) -> File:
        if self._count(self.model.SubgraphsLength()) == 0:
            raise ModelError(f"{self.name}: the file has no subgraph. Convert the model again.")
        graph = self.model.Subgraphs(0)
        tensors = tuple(
            self._tensor(number, graph.Tensors(number))
            for number in range(self._count(graph.TensorsLength()))
        )
        operators = tuple(
            self._operator(number, graph.Operators(number))
            for number in range(self._count(graph.OperatorsLength()))
        )
        file = File(
            tensors,
            operators,
            inputs=self._numbers(graph.InputsLength(), graph.InputsAsNumpy()),
            outputs=self._numbers(graph.OutputsLength(), graph.OutputsAsNumpy()),
        )
        self._check_numbers(file)
        return file

    def _count(self, items: int) -> int:
        """Of a vector's items, which take four bytes each."""
        self._spend(4 * items)
        return items

    def _spend(self, size: int) -> None:
        self.left -= size
        if size < 0 or self.left < 0:
            raise ValueError("its tables hold more than its size")

    def _numbers(self, length: int, array: Array | int) -> tuple[int, ...]:
        self._count(length)
        return tuple(int(each) for each in np.asarray(array)) if length else ()

    def _text(self, text: bytes | None) -> str:
        self._spend(len(text or b""))
        return (text or b"").decode(errors="replace")

    def _tensor(self, number: int, tensor: Any) -> FileTensor:
        shape = self._numbers(tensor.ShapeLength(), tensor.ShapeAsNumpy())
        signature = self._numbers(tensor.ShapeSignatureLength(), tensor.ShapeSignatureAsNumpy())
        if len(shape) > _HIGHEST_RANK or min(shape, default=0) < 0:
            raise ValueError(f"tensor {number} has the shape {shape}")
        if len(signature) != len(shape):
            signature = shape
        dtype = _DTYPES.get(tensor.Type()) or _TYPE_NAMES.get(tensor.Type(), str(tensor.Type()))
        return FileTensor(
            name=self._text(tensor.Name()),
            shape=shape,
            signature=signature,
            dtype=dtype,
            quantization=self._quantization(number, tensor, shape, dtype),
            variable=bool(tensor.IsVariable()),
            constant=self._constant(number, tensor, shape, dtype),
        )

    def _quantization(
        self, number: int, tensor: Any, shape: tuple[int, ...], dtype: str
    ) -> FileQuantization | None:
        given = tensor.Quantization()
        if given is None or given.ScaleLength() == 0 or "int" not in dtype:
            return None  # a float's scale is what it had before
        count, axis = self._count(given.ScaleLength()), given.QuantizedDimension()
        scales = np.array(given.ScaleAsNumpy(), np.float32)
        points = np.zeros(count, np.int64)
        if self._count(given.ZeroPointLength()):
            points = np.array(given.ZeroPointAsNumpy(), np.int64)
        along = shape[axis] if axis in range(len(shape)) else 1
        if count not in (1, along) or points.size != count or not np.all(np.isfinite(scales)):
            raise ValueError(
                f"tensor {number} of shape {shape} has {count} scales and {points.size} zero points on "
                f"axis {axis}"
            )
        return FileQuantization(scales, points, axis)

    def _constant(
        self, number: int, tensor: Any, shape: tuple[int, ...], dtype: str
    ) -> Array | None:
        data = self._buffer(tensor.Buffer())
        if len(data) == 0 or dtype not in _DTYPES.values():
            return None
        values = np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).astype(dtype, copy=False)
        sparsity = tensor.Sparsity()
        if sparsity is not None:
            self._spend(prod(shape))  # a dense array may be much larger than the file
            return densify(sparsity, values, shape)
        if values.size != prod(shape):
            raise ValueError(f"tensor {number} of shape {shape} has {values.size} values")
        return values.reshape(shape)

    def _buffer(self, number: int) -> memoryview:
        if not 0 <= number < self.model.BuffersLength():
            raise IndexError(f"there is no buffer {number}")
        buffer = self.model.Buffers(number)
        if buffer.Offset() > 1:  # behind the flatbuffer, as files above 2 GiB have it
            start, size = buffer.Offset(), buffer.Size()
            if start + size > len(self.content):
                raise IndexError(f"buffer {number} lies behind the file's end")
            return memoryview(self.content)[start : start + size]
        if buffer.DataLength() == 0:
            return memoryview(b"")
        return memoryview(buffer.DataAsNumpy())

    def _operator(self, number: int, operator: Any) -> FileOperator:
        if not 0 <= operator.OpcodeIndex() < self.model.OperatorCodesLength():
            raise IndexError(f"operator {number} has no code")
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        # The older field has 8 bits, and 127 in files that need the newer one.
        builtin = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
        custom = builtin == tflite.BuiltinOperator.CUSTOM
        kind = self._text(code.CustomCode()) if custom else _OPERATOR_NAMES.get(builtin)
        length = operator.CustomOptionsLength()
        self._spend(length)

        def options(name: str) -> Any:
            table, found = operator.BuiltinOptions(), _OPTIONS.get(operator.BuiltinOptionsType())
            if table is not None and found not in (name, "NONE"):
                raise ValueError(f"operator {number} has {found} in place of {name}")
            made = getattr(tflite, name)()
            made.Init(*(_NO_OPTIONS if table is None else (table.Bytes, table.Pos)))
            return made

        return FileOperator(
            kind=kind or f"operator of code {builtin}",
            custom=custom,
            inputs=self._numbers(operator.InputsLength(), operator.InputsAsNumpy()),
            outputs=self._numbers(operator.OutputsLength(), operator.OutputsAsNumpy()),
            options=options,
            custom_options=operator.CustomOptionsAsNumpy().tobytes() if length else b"",
        )

    def _check_numbers(self, file: File) -> None:
        """That all numbers of tensors are some, and each tensor is made once, before it is read."""
        made = {*file.inputs}
        made.update(number for number, each in enumerate(file.tensors) if each.constant is not None)
        for index, operator in enumerate(file.operators):
            known = range(len(file.tensors))
            strange = [n for n in operator.outputs if n not in known or n in made]
            strange += [n for n in operator.inputs if n != -1 and n not in known]
            if strange:
                raise IndexError(f"operator {index} reads or makes the tensors {strange}")
            made.update(operator.outputs)
        ends: Sequence[int] = (*file.inputs, *file.outputs)
        if any(number not in range(len(file.tensors)) for number in ends):
            raise IndexError("an input or output is no tensor")
