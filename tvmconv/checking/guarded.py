"""Runs a compiled convolution on arrays between guards, so that what it must not touch is found out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tvmconv.building.compile import compile_functions
from tvmconv.errors import HardwarePackError
from tvmconv.hardware import Function, Machine
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import arrays, pools, tensors

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
        pools.set_environment()
        self.module = compile_function(function, machine)

    def run(self, arguments: dict[str, Array], threads: int) -> Array:
        """Compute the output on copies of ``arguments`` between guards.

        Raises HardwarePackError where the kernel writes to a guard or to an argument.
        """
        pools.use_threads(threads)
        spec = self.spec
        placed = {name: _placed(array) for name, array in arguments.items() if name != "filter"}
        out, edges = _guarded(spec.output_shape, tensors.numpy_dtype(spec.out_dtype))
        names = [name for name in ("bias", "residual") if name in placed]
        called = [placed["data"], self._weights(arguments["filter"])]
        called += [*(placed[name] for name in names), *self._workspace(), out]
        images = (arrays.array_pointer(self._as_called(array)) for array in called)
        self.module["main"](*images)
        if any((edge.view(np.uint8) != 0xFF).any() for edge in edges):
            raise HardwarePackError(f"{self.name}: writes beyond its output")
        for name in ("data", *names):
            if placed[name].tobytes() != arguments[name].tobytes():
                raise HardwarePackError(f"{self.name}: writes to its argument {name}")
        return out

    def _workspace(self) -> list[Array]:
        """Scratch memory that holds no numbers."""
        size = self.function.workspace_bytes // 4
        return [_guarded((size,), np.dtype("float32"))[0]] if size else []

    def _weights(self, filter_: Array) -> Array:
        """The filter as the kernel takes it, 64-byte aligned as the runtime promises."""
        weights = arrays.aligned_copy(filter_)
        if self.function.pack is None:
            return weights
        dtype = tensors.numpy_dtype(self.function.packed_dtype)
        packed = arrays.empty_aligned(self.function.packed_shape, dtype)
        self.module["pack"](arrays.array_pointer(weights), arrays.array_pointer(packed))
        return packed

    def _as_called(self, array: Array) -> Array:
        """Images of any rank as the kernel takes them: with one batch dimension."""
        if array.shape not in (self.spec.input_shape, self.spec.output_shape):
            return array
        return array.reshape((self.spec.batch, *array.shape[-3:]))


def _guarded(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Array, tuple[Array, Array]]:
    """An array one element behind a 64-byte boundary and what lies around it, all bytes 0xFF.

    As floats of any width that is NaN: whoever uses a value from outside, or leaves one of the output
    as it was, is found out by the comparison with the oracle.
    """
    size = int(np.prod(shape))
    raw = arrays.empty_aligned((size + 2 * _GUARD + 1,), dtype)
    raw.view(np.uint8)[...] = 0xFF
    begin = _GUARD + 1
    return raw[begin : begin + size].reshape(shape), (raw[:begin], raw[begin + size :])


def _placed(array: Array) -> Array:
    copy, _ = _guarded(array.shape, array.dtype)
    copy[...] = array
    return copy
