"""From the operators of a .onnx file to a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tvmconv.errors import ModelError
from tvmconv.models.channels_first.steps import Steps, Value, identity
from tvmconv.models.graph import Builder, Graph
from tvmconv.models.onnx.arithmetic import ARITHMETIC
from tvmconv.models.onnx.file import File, FileInput, FileNode, damage, parse
from tvmconv.models.onnx.images import IMAGES
from tvmconv.models.onnx.operation import Operation
from tvmconv.models.onnx.shapes import SHAPES
from tvmconv.models.refusing import open_shape, refuse

_READS: Final = {**ARITHMETIC, **IMAGES, **SHAPES}
_ADVICE: Final = {
    "If": "Export it without control flow, or simplify it",
    "Loop": "Export it without control flow, or simplify it",
    "QuantizeLinear": "Export it without quantisation",
    "DequantizeLinear": "Export it without quantisation",
    "QLinearConv": "Export it without quantisation",
    "NonMaxSuppression": "End the model in front of it",
    "ArgMax": "End the model in front of it",
    "TopK": "End the model in front of it",
}
# Constants that are computed while reading may take that many bytes more than the file's: a few bytes of
# it can ask for any number.
_COMPUTED_BYTES: Final = 1 << 29
_COPIES: Final = 4  # of the file's constants: transposed filters, folded factors
_MOST_CONNECTIONS: Final = 1 << 18  # as for .tflite files


def read_onnx(
    content: bytes,
    name: str,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    folder: Path | None = None,
) -> Graph:
    """Read the bytes of a .onnx file.

    Args:
        content: of the file.
        name: of the model, for people.
        input_shapes: of inputs by their names, in place of the file's; needed where it leaves them open.
        folder: of the file, where constants may lie in files of their own.

    Raises:
        ModelError: the file is damaged, or has what is not supported: up to ten of those, with their places.
    """
    file = parse(content, name, folder)
    connections = sum(len(each.inputs) + len(each.outputs) + 1 for each in file.nodes)
    if connections > _MOST_CONNECTIONS:
        raise ModelError(
            f"{name}: its operators have {connections} inputs and outputs; more than "
            f"{_MOST_CONNECTIONS} are not read. Is it damaged?"
        )
    with damage(name):
        return _Reader(file, name, input_shapes or {}).read()


class _Reader:
    def __init__(self, file: File, name: str, shapes: Mapping[str, Sequence[int]]) -> None:
        self.file = file
        self.name = name
        self.shapes = shapes
        self.builder = Builder(name)
        self.values: dict[str, Value] = {}
        self.lost: set[str] = set()  # values that could not be made
        self.problems: list[str] = []
        self.read_names = {name for each in file.nodes for name in each.inputs} | {*file.outputs}
        self.most, self.bytes, self.counted = _COMPUTED_BYTES, 0, 0  # of constants

    def read(self) -> Graph:
        self._inputs()
        refuse(self.name, self.problems)
        for name, array in self.file.constants.items():
            self.values[name] = Value(self.builder.constant(name, array), identity(array.ndim))
        self.most = _COMPUTED_BYTES + _COPIES * sum(
            each.nbytes for each in self.file.constants.values()
        )
        for number, node in enumerate(self.file.nodes):
            self._node(number, node)
        refuse(self.name, self.problems)
        for name in self.file.outputs:
            if name not in self.values:
                raise ModelError(f"{self.name}: no operator makes the output {name!r}")
            steps = Steps(self.builder, f"output {name!r}", name)
            self.builder.output(name, steps.plain(self.values[name]))
        return self.builder.graph()

    def _count_constants(self, place: str) -> None:
        """Refuse more bytes of constants than a sound model computes; counts those that are new."""
        constants = self.builder.constants
        new = range(len(constants) - self.counted)
        self.bytes += sum(
            each.nbytes for each, _ in zip(reversed(constants.values()), new, strict=False)
        )
        self.counted = len(constants)
        if self.bytes > self.most:
            raise ModelError(f"{place}: constants take more than {self.most} bytes. Is it damaged?")

    def _inputs(self) -> None:
        names = [each.name for each in self.file.inputs]
        for strange in sorted(set(self.shapes) - set(names)):
            self.problems.append(f"input_shapes names {strange!r}, but the inputs are {names}")
        for each in self.file.inputs:
            shape = tuple(self.shapes.get(each.name, ())) or each.shape
            problem = _shape_problem(each, self.shapes.get(each.name))
            if problem:
                self.problems.append(problem)
                continue
            known = tuple(int(extent or 0) for extent in shape)
            made = self.builder.input(each.name, known, each.dtype)
            self.values[each.name] = Value(made, identity(len(known)))

    def _node(self, number: int, node: FileNode) -> None:
        label = repr(node.outputs[0]) if node.outputs else "nothing"
        place = f"{node.kind}, operator {number}, which makes {label}"
        kind = f"{node.domain}.{node.kind}" if node.domain else node.kind
        missing = [name for name in node.inputs if name and name not in self.values]
        if kind not in _READS or missing:
            self.lost.update(node.outputs)
            if kind not in _READS:
                advice = _ADVICE.get(kind, "Replace it")
                self.problems.append(f"{place}: the operator is not supported. {advice}.")
            elif not self.lost.intersection(missing):
                self.problems.append(f"{place}: no operator in front makes its inputs {missing}")
            return
        operation = Operation(
            Steps(self.builder, place, node.outputs[0] if node.outputs else ""),
            node.kind,
            self.file.opset,
            tuple(self.values[name] if name else None for name in node.inputs),
            len(node.outputs),
            node.attributes,
        )
        try:
            with damage(place):
                made = _READS[kind](operation)
        except ModelError as error:
            self.problems.append(str(error))
            self.lost.update(node.outputs)
            return
        values = [made] if isinstance(made, Value) else list(made)
        self._keep(place, node, values)

    def _keep(self, place: str, node: FileNode, values: Sequence[Value]) -> None:
        """Remember what an operator makes; a second output of some may be named if nobody reads it."""
        for name in node.outputs:
            if name and name in self.values:
                self.problems.append(f"{place}: {name!r} is there already")
        self.values.update(
            {name: value for name, value in zip(node.outputs, values, strict=False) if name}
        )
        for name in node.outputs[len(values) :]:
            self.lost.add(name)
            if name and name in self.read_names:
                self.problems.append(f"{place}: its output {name!r} is not supported. Do without.")
        self._count_constants(place)


def _shape_problem(tensor: FileInput, given: Sequence[int] | None) -> str | None:
    """What is wrong with an input's shape: nothing may be unknown."""
    known = tuple("?" if extent is None else extent for extent in tensor.shape)
    if given is not None:
        if len(given) != len(known) or min(given, default=1) < 1:
            return f"input_shapes has {tuple(given)} for {tensor.name!r}, but the model {known}"
        return None
    if None not in tensor.shape:
        return None
    return open_shape(tensor.name, tensor.shape)
