"""The function that calls all others in order: ``main(inputs, weights, arena, outputs)``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import PointerType, PrimType

from tvmconv.models.arena import ALIGNMENT, Arena
from tvmconv.models.graph import Tensor
from tvmconv.models.program import Program

SYMBOL = "tvmconv_main"


@dataclass(frozen=True)
class Layout:
    """Where values are: constants in the weights, others in the arena, by offset in bytes.

    What is in neither is an input or an output of the model.
    """

    weights: Mapping[str, int]
    weights_bytes: int
    arena: Arena


def main_function(program: Program, layout: Layout, functions: Mapping[str, Any]) -> Any:
    """Return main: the model's inputs, the weights, the arena and the model's outputs.

    ``functions`` are those that the program calls, by symbol. One TIR function costs 20 to
    40 ns a call; TVM's virtual machine, and calls from Python, cost five to ten times as much.
    """
    return _Main(program, layout).function(functions)


class _Main:
    """Collects the statements of main."""

    def __init__(self, program: Program, layout: Layout) -> None:
        graph = program.graph
        self._program, self._layout = program, layout
        self._weights = _bytes_buffer("weights", layout.weights_bytes)
        self._arena = _bytes_buffer("arena", layout.arena.bytes)
        self._inputs = {
            name: _buffer(f"input{i}", tensor)
            for i, (name, tensor) in enumerate(graph.inputs.items())
        }
        self._outputs = {
            name: _buffer(f"output{i}", program.tensors[name])
            for i, name in enumerate(graph.outputs.values())
        }
        self._statements: list[Any] = []
        self._views: dict[Any, Any] = {}

    def function(self, functions: Mapping[str, Any]) -> Any:
        for call in self._program.calls:
            values = zip((*call.inputs, call.result), functions[call.symbol].params, strict=True)
            views = [self._view(name, each) for name, each in values]
            self._statements.append(tirx.Evaluate(tirx.call_cpacked(call.symbol, *views)))
        if not self._statements:
            self._statements.append(tirx.Evaluate(tirx.const(0, "int32")))
        arguments = [
            *self._inputs.values(),
            self._weights,
            self._arena,
            *self._outputs.values(),
        ]
        return tirx.PrimFunc(arguments, tirx.SeqStmt(self._statements))

    def _view(self, name: str, parameter: Any) -> Any:
        """Return a value's memory as a function takes it, in shape and dtype: declared once."""
        shape, dtype = tuple(int(extent) for extent in parameter.shape), str(parameter.dtype)
        key = (name, shape, dtype)
        if key not in self._views:
            home, offset = self._program.home(name)
            view = tirx.decl_buffer(
                shape, dtype, f"view{len(self._views)}", data_alignment=tvm.DataType(dtype).itemsize
            )
            address = self._address(home, offset, dtype)
            self._statements.append(tirx.DeclBuffer(view, data=address))
            self._views[key] = view
        return self._views[key]

    def _address(self, home: str, offset: int, dtype: str) -> Any:
        # Not by elem_offset: compiled functions refuse a byte_offset.
        if home in self._layout.weights:
            return _address_of(self._weights, [self._layout.weights[home] + offset], dtype)
        if home in self._layout.arena.offsets:
            return _address_of(self._arena, [self._layout.arena.offsets[home] + offset], dtype)
        output = self._program.placed.get(home, home)
        buffer = self._outputs[output] if output in self._outputs else self._inputs[home]
        index, rest = [], offset // tvm.DataType(buffer.dtype).itemsize
        for extent in reversed([int(each) for each in buffer.shape]):
            index.append(rest % extent)
            rest //= extent
        return _address_of(buffer, index[::-1], dtype)


def _address_of(buffer: Any, index: list[int], dtype: str) -> Any:
    op = tvm.ir.Op.get("tirx.address_of")
    return tvm.ir.Call(op, [buffer[tuple(index)]], ret_ty=PointerType(PrimType(dtype)))


def _bytes_buffer(name: str, size: int) -> Any:
    return tirx.decl_buffer((max(size, ALIGNMENT),), "uint8", name, data_alignment=ALIGNMENT)


def _buffer(name: str, tensor: Tensor) -> Any:
    element = tvm.DataType(tensor.dtype).itemsize
    return tirx.decl_buffer(tensor.shape or (1,), tensor.dtype, name, data_alignment=element)
