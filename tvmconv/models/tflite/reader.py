"""From the tensors and operators of a .tflite file to a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tvmconv.errors import ModelError
from tvmconv.models.graph import ABSENT, Builder, Graph
from tvmconv.models.refusing import open_shape, refuse
from tvmconv.models.tflite.arithmetic import ARITHMETIC
from tvmconv.models.tflite.file import File, FileOperator, FileTensor, damage, parse
from tvmconv.models.tflite.images import CUSTOM, IMAGES
from tvmconv.models.tflite.operation import Operation
from tvmconv.models.tflite.quantized import is_quantized, read_quantized
from tvmconv.models.tflite.shapes import SHAPES

_READS: Final = {**IMAGES, **ARITHMETIC, **SHAPES}
_DTYPES: Final = ("float32", "float16", "float64", "int64", "int32", "int8", "uint8", "bool")
# More nodes, or connections of nodes, than any model has whose files are known: a hostile file's operators
# may all be one, and its lists of inputs too.
_MOST_CONNECTIONS: Final = 1 << 18


def read_tflite(
    content: bytes, name: str, input_shapes: Mapping[str, Sequence[int]] | None = None
) -> Graph:
    """Read the bytes of a .tflite file.

    Args:
        content: of the file.
        name: of the model, for people.
        input_shapes: of inputs by their names, in place of the file's.

    Raises:
        ModelError: the file is damaged, or has what is not supported: up to ten of those, with their places.
    """
    file = parse(content, name)
    _check(file, name)
    with damage(name):
        return _Reader(file, name, input_shapes or {}).read()


class _Reader:
    def __init__(self, file: File, name: str, shapes: Mapping[str, Sequence[int]]) -> None:
        self.file = file
        self.name = name
        self.shapes = shapes
        self.builder = Builder(name)
        self.values: dict[int, str] = {-1: ABSENT}  # number of a tensor -> name of the value
        self.lost: set[int] = set()  # tensors that could not be made
        self.problems: list[str] = []

    def read(self) -> Graph:
        self._inputs()
        for number, tensor in enumerate(self.file.tensors):
            if tensor.constant is not None and number not in self.values:
                self.values[number] = self.builder.constant(tensor.name, tensor.constant)
        for number, operator in enumerate(self.file.operators):
            self._operator(number, operator)
        refuse(self.name, self.problems)
        for number in self.file.outputs:
            if number not in self.values:
                raise ModelError(f"{self.name}: no operator makes the output {self._label(number)}")
            self.builder.output(self.file.tensors[number].name, self.values[number])
        return self.builder.graph()

    def _inputs(self) -> None:
        names = [self.file.tensors[number].name for number in self.file.inputs]
        for strange in sorted(set(self.shapes) - set(names)):
            self.problems.append(f"input_shapes names {strange!r}, but the inputs are {names}")
        for number in self.file.inputs:
            tensor = self.file.tensors[number]
            shape = tuple(self.shapes.get(tensor.name, tensor.shape))
            problem = _shape_problem(tensor, shape, tensor.name in self.shapes)
            if problem:
                self.problems.append(problem)
            self.values[number] = self.builder.input(tensor.name, shape, tensor.dtype)

    def _operator(self, number: int, operator: FileOperator) -> None:
        label = self._label(operator.outputs[0]) if operator.outputs else "nothing"
        place = f"{operator.kind}, operator {number}, which makes {label}"
        table = CUSTOM if operator.custom else _READS
        missing = [each for each in operator.inputs if each not in self.values]
        if operator.kind not in table or missing:
            self.lost.update(operator.outputs)
            if operator.kind not in table:
                self.problems.append(f"{place}: the operator is not supported")
            elif not self.lost.intersection(missing):
                self.problems.append(f"{place}: no operator in front makes its inputs {missing}")
            return
        operation = Operation(
            self.builder,
            operator,
            tuple(self.values[each] for each in operator.inputs),
            tuple(self.file.tensors[each].name for each in operator.outputs),
            tuple(self.file.tensors[each].dtype for each in operator.outputs),
            place,
            tuple(
                self.file.tensors[each].quantization if each >= 0 else None
                for each in operator.inputs
            ),
            tuple(self.file.tensors[each].quantization for each in operator.outputs),
        )
        try:
            with damage(place):
                read = table[operator.kind]
                quantized = is_quantized(operation)
                made = read_quantized(operation, read) if quantized else read(operation)
        except ModelError as error:
            self.problems.append(str(error))
            self.lost.update(operator.outputs)
            return
        names = [made] if isinstance(made, str) else list(made)
        self.values.update(zip(operator.outputs, names, strict=True))

    def _label(self, number: int) -> str:
        return repr(self.file.tensors[number].name or f"tensor {number}")


def _shape_problem(tensor: FileTensor, shape: tuple[int, ...], given: bool) -> str | None:
    """What is wrong with an input's shape; the first extent, of a batch, may be unknown and is then 1."""
    if given and (len(shape) != len(tensor.shape) or min(shape, default=1) < 1):
        return f"input_shapes has {shape} for {tensor.name!r}, but the model {tensor.signature}"
    if given or -1 not in tensor.signature[1:]:
        return None
    return open_shape(tensor.name, [None if each == -1 else each for each in tensor.signature])


def _check(file: File, name: str) -> None:
    """Raise ModelError for tensors that no operator can take, and for absurd counts."""
    connections = sum(len(each.inputs) + len(each.outputs) + 1 for each in file.operators)
    if connections > _MOST_CONNECTIONS:
        raise ModelError(
            f"{name}: its operators have {connections} inputs and outputs; more than "
            f"{_MOST_CONNECTIONS} are not read. Is it damaged?"
        )
    used = {number for each in file.operators for number in (*each.inputs, *each.outputs)}
    tensors = [file.tensors[number] for number in sorted((used | {*file.inputs}) - {-1})]
    refuse(
        name,
        [
            f"{tensor.name!r} has the dtype {tensor.dtype}, but only {', '.join(_DTYPES)} are supported"
            for tensor in tensors
            if tensor.dtype not in _DTYPES
        ]
        + [
            f"{tensor.name!r} keeps its value between runs, which is not supported"
            for tensor in tensors
            if tensor.variable
        ],
    )
