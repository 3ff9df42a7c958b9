"""Runs a compiled convolution on arrays between guards, so that what it must not touch is found out."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmconv.building.compile import compile_functions
from tvmconv.errors import HardwarePackError
from tvmconv.hardware import Function, Machine
from tvmconv.problem import calling
from tvmconv.problem.calling import Operand, Role
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import arrays, engine, tensors

Array = npt.NDArray[Any]

# Elements around every array that must be neither used nor written; a multiple of 64 bytes.
_GUARD = 64


def compile_function(function: Function, machine: Machine) -> Any:
    """TVM's module of a kernel and its packing, under the names ``main`` and ``pack``."""
    functions = {"main": function.main}
    if function.pack is not None:
        functions["pack"] = function.pack
    return compile_functions(functions, machine.target).mod


class GuardedKernel:
    """A scheduled function compiled in memory for a machine that runs here; ``name`` is for errors."""

    def __init__(self, name: str, spec: ConvSpec, function: Function, machine: Machine) -> None:
        self.name, self.spec, self.function = name, spec, function
        # TVM would pin this thread to a core when it starts others.
        os.environ.setdefault("TVM_BIND_THREADS", "0")
        self.module = compile_function(function, machine)

    def run(self, arguments: dict[str, Array], threads: int) -> Array:
        """Compute the output on copies of ``arguments`` between guards.

        Raises HardwarePackError where the kernel writes to a guard or to an argument.
        """
        engine.use_threads(threads)
        signature = calling.signature(self.spec, self.function)
        given = {**arguments, "filter": self._weights(signature["filter"], arguments["filter"])}
        inputs = [each for each in signature.taken if each.role in (Role.INPUT, Role.CONSTANT)]
        placed = {each.name: _placed(each, given[each.name]) for each in inputs}
        for operand in signature.of(Role.SCRATCH, Role.OUTPUT):
            placed[operand.name] = _guarded(operand)
        arrays_ = arrays.ordered(signature, {name: array for name, (array, _) in placed.items()})
        self.module["main"](*map(arrays.array_pointer, arrays_))
        out, edges = placed["out"]
        if any((edge.view(np.uint8) != 0xFF).any() for edge in edges):
            raise HardwarePackError(f"{self.name}: writes beyond its output")
        for each in inputs:
            if placed[each.name][0].tobytes() != given[each.name].tobytes():
                raise HardwarePackError(f"{self.name}: writes to its argument {each.name}")
        return out.reshape(self.spec.output_shape)

    def _weights(self, operand: Operand, filter_: Array) -> Array:
        """The filter as the kernel takes it."""
        if not operand.packed:
            return filter_
        packed = arrays.empty(operand)
        plain = arrays.aligned_copy(filter_)
        self.module["pack"](arrays.array_pointer(plain), arrays.array_pointer(packed))
        return packed


def _guarded(operand: Operand) -> tuple[Array, tuple[Array, Array]]:
    """An operand's array and what lies around it, all bytes 0xFF.

    It begins where the kernel may expect it at worst, which is one element behind a 64-byte boundary unless
    more is promised. As floats of any width the bytes are NaN: whoever uses a value from outside, or leaves
    one of the output as it was, is found out by the comparison with the oracle.
    """
    shape, dtype = operand.taken_shape, tensors.numpy_dtype(operand.taken_dtype)
    size = int(np.prod(shape))
    raw = arrays.empty_aligned((size + 3 * _GUARD,), dtype)
    raw.view(np.uint8)[...] = 0xFF
    begin = _GUARD + operand.alignment // dtype.itemsize
    return raw[begin : begin + size].reshape(shape), (raw[:begin], raw[begin + size :])


def _placed(operand: Operand, array: Array) -> tuple[Array, tuple[Array, Array]]:
    placed, edges = _guarded(operand)
    placed[...] = array.reshape(placed.shape)
    return placed, edges
