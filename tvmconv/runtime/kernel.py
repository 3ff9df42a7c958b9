"""Compiled convolutions as Python callables: Kernel takes weights, BoundKernel has them packed.

Both may be called from several Python threads at once, and a call releases Python's global lock
while it computes.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tvmconv.problem.calling import Operand, Role
from tvmconv.problem.quantized import LIMITS, SCALES
from tvmconv.runtime import abi, arrays, pools, tensors
from tvmconv.runtime.arrays import Argument
from tvmconv.runtime.compiled import BoundLayer, CompiledKernel

# What nearly every call does, by names that are found fast: 0.3 us an array less than `arrays.address`.
ndarray, addressof = np.ndarray, ctypes.addressof
from_buffer: Callable[[Any], ctypes.c_char] = ctypes.c_char.from_buffer
_MISALIGNED = 7  # of any element: an array that begins between goes the other way
# data, residual (None where the kernel has none) and out, whose addresses each call sets.
_Varying = tuple[arrays.DLTensor, arrays.DLTensor | None, arrays.DLTensor]
# The same and the call.
_Frame = tuple[arrays.DLTensor, arrays.DLTensor | None, arrays.DLTensor, Callable[[], object]]


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel(CompiledKernel):
    """One compiled problem. Index a `Library` to get it.

    Attributes:
        spec, entry, machine, function, pack: as in `CompiledKernel`.
        threads: how many threads a call uses.

    """

    function: abi.Function | None = dataclasses.field(repr=False)
    pack: abi.Function | None = dataclasses.field(repr=False)
    threads: int

    def bind(
        self,
        w: object,
        bias: object = None,
        slopes: object = None,
        scales: object = None,
        limits: object = None,
    ) -> BoundKernel:
        """Pack a filter of shape ``spec.filter_shape``, a bias and slopes of ``spec.bias_shape`` once.

        All are copied: changing the arrays afterwards does not change the layer. A quantised spec takes
        ``scales`` and ``limits`` too: `tvmconv.runtime.quantization.Quantization` makes them. Raises
        ValueError and TypeError as `BoundKernel.__call__` does.
        """
        return BoundKernel(
            self, {"filter": w, "bias": bias, "slopes": slopes, SCALES: scales, LIMITS: limits}
        )


class BoundKernel(BoundLayer):
    """A convolution layer: a kernel with its weights packed. `Kernel.bind` makes it."""

    __slots__ = (
        "_constants", "_direct", "_dtype", "_frames", "_has_residual", "_out", "_out_dtype",
        "_residual", "_residual_bytes", "_threads", "_x", "_x_bytes", "_y_bytes",
    )  # fmt: skip
    kernel: Kernel

    def __init__(self, kernel: Kernel, constants: Mapping[str, object]) -> None:
        """``constants`` are what users gave, by the names of operands."""
        key, signature = kernel.key, kernel.signature
        data, residual, out = (signature[name] for name in ("data", "residual", "out"))
        self.kernel = kernel
        self._dtype = tensors.numpy_dtype(data.dtype)
        self._out_dtype = tensors.numpy_dtype(out.dtype)
        self._threads = kernel.threads
        self._has_residual = residual.present
        self._x = Argument.of(data, key)
        self._residual = Argument.of(residual, key)
        self._out = Argument.of(out, key)
        self._x_bytes, self._y_bytes = data.bytes, out.bytes
        self._residual_bytes = residual.bytes
        # None never equals a shape: a kernel with a residual takes the other way.
        in_shape = None if residual.present else data.shape
        self._direct = (
            in_shape, self._dtype, self._x_bytes, out.shape, self._out_dtype, self._y_bytes
        )  # fmt: skip
        self._constants: dict[str, arrays.Array] = {}
        for operand in signature.of(Role.CONSTANT):
            value, argument = constants[operand.name], Argument.of(operand, key)
            if argument.is_given(value):
                array = argument.readable(value)
                self._constants[operand.name] = _constant(kernel, operand, array)
        self._frames: list[_Frame] = []

    def __call__(self, x: object, residual: object = None, out: object = None) -> Any:
        """Compute the layer's output.

        Args:
            x: array of shape ``spec.input_shape`` and ``spec.dtype``: a NumPy array, or a CPU
                tensor of a framework with DLPack (torch, JAX, TensorFlow), taken without a copy. An
                array that is not C-contiguous, aligned and in native byte order is copied first.
            residual: array of shape ``spec.residual_shape`` and ``spec.out_dtype``, if and only if the
                spec has a residual.
            out: NumPy array or torch tensor of ``spec.output_shape`` and that dtype to write to, of any
                strides; it may overlap the inputs. Passing a C-contiguous one saves an allocation.

        Returns:
            ``out`` if given; else a new array of the same kind as ``x``, 64-byte aligned.

        Raises:
            ValueError: a wrong shape or device, a read-only ``out``, a residual missing or given
                without need.
            TypeError: not an array, or one of another dtype.

        """
        shape, dtype, in_bytes, out_shape, out_dtype, out_bytes = self._direct
        if (
            type(x) is ndarray
            and type(out) is ndarray
            and residual is None
            and x.shape == shape
            and out.shape == out_shape
            and x.dtype == dtype
            and out.dtype == out_dtype
        ):
            try:
                source, target = addressof(from_buffer(x)), addressof(from_buffer(out))
            except (TypeError, ValueError):  # read-only, not contiguous, bfloat16
                return self._call_checked(x, residual, out)
            apart = target >= source + in_bytes or source >= target + out_bytes
            if apart and not (source | target) & _MISALIGNED:
                self._run(source, 0, target)
                return out
        return self._call_checked(x, residual, out)

    def _call_checked(self, x: object, residual: object, out: Any) -> Any:
        """Compute from contiguous arrays where there are some, without a copy."""
        dtype, shape = self._out_dtype, self._out.shape
        source = arrays.address(x, self._x.shape, self._dtype, arrays.READABLE)
        addend = 0
        if self._has_residual:
            addend = arrays.address(residual, self._residual.shape, dtype, arrays.READABLE)
            if not addend:
                return self._call_any(x, residual, out)
        elif residual is not None:
            return self._call_any(x, residual, out)
        if not source:
            return self._call_any(x, residual, out)
        if out is None:
            out = arrays.empty_aligned(shape, dtype)
            target = arrays.data_address(out)
        else:
            target = arrays.address(out, shape, dtype, arrays.WRITABLE)
            end = target + self._y_bytes
            if (
                not target
                or (source < end and target < source + self._x_bytes)
                or (addend and addend < end and target < addend + self._residual_bytes)
            ):
                return self._call_any(x, residual, out)
        self._run(source, addend, target)
        return out

    def pointers(
        self, x: arrays.Array, residual: arrays.Array | None, out: arrays.Array
    ) -> tuple[ctypes.c_void_p, ...]:
        """Return the compiled function's own arguments, for timing it without this wrapper.

        The arrays must be as the function takes them (shape, dtype, C-contiguous); they must
        outlive the pointers.
        """
        structs, (data, addend, target) = self._structs()
        data.data, target.data = arrays.data_address(x), arrays.data_address(out)
        if addend is not None and residual is not None:
            addend.data = arrays.data_address(residual)
        return tuple(map(arrays.pointer, structs))

    def _call_any(self, x: object, residual: object, out: object) -> Any:
        """Compute from arguments of any kind that is allowed, or raise."""
        source = self._x.readable(x)
        given = self._residual.is_given(residual)
        addend = self._residual.readable(residual) if given else None
        result = None if out is None else self._out.writable(out)
        direct = (
            result is not None
            and arrays.address(result, self._out.shape, self._out_dtype, arrays.WRITABLE)
            and not np.may_share_memory(result, source)
            and not (addend is not None and np.may_share_memory(result, addend))
        )
        target = result if direct else arrays.empty_aligned(self._out.shape, self._out_dtype)
        assert target is not None  # noqa: S101 - for the type checker
        self._run(
            arrays.data_address(source),
            0 if addend is None else arrays.data_address(addend),
            arrays.data_address(target),
        )
        if result is None:
            return tensors.like(x, target)
        if not direct:
            np.copyto(result, target, casting="equiv")
        return out

    def _run(self, source: int, addend: int, target: int) -> None:
        # Each running call has structs of its own; list.pop and append are atomic, so no two
        # threads (and no signal handler) ever hold the same ones.
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = self._new_frame()
        data, residual, out, call = frame
        data.data = source
        if residual is not None:
            residual.data = addend
        out.data = target
        threads = self._threads
        if pools.current.threads == threads or pools.may_call(threads):
            call()
        else:
            pools.call_elsewhere(threads, call)
        self._frames.append(frame)

    def _new_frame(self) -> _Frame:
        structs, varying = self._structs()
        function = self.kernel.function
        return *varying, _compute_nothing if function is None else function.prepared(structs)

    def _structs(self) -> tuple[list[arrays.DLTensor], _Varying]:
        """What the compiled function takes, in its order, and those of them that calls set."""
        varying, structs = {}, []
        for operand in self.kernel.signature.taken:
            if operand.role is Role.CONSTANT:
                struct = arrays.array_tensor(self._constants[operand.name])
            elif operand.role is Role.SCRATCH:  # of its own, since calls may run at the same time
                struct = arrays.array_tensor(arrays.empty(operand))
            else:
                dtype = tensors.numpy_dtype(operand.taken_dtype)
                struct = varying[operand.name] = arrays.tensor(operand.taken_shape, dtype)
            structs.append(struct)
        return structs, (varying["data"], varying.get("residual"), varying["out"])


def _constant(kernel: Kernel, operand: Operand, array: arrays.Array) -> arrays.Array:
    """Return a copy of a constant as the compiled function takes it."""
    if not operand.packed or kernel.pack is None:
        return arrays.aligned_copy(array)
    packed = arrays.empty(operand)
    structs = arrays.array_tensor(array), arrays.array_tensor(packed)
    pools.call(kernel.threads, kernel.pack.prepared(structs))
    return packed


def _compute_nothing() -> None:
    """Stand in for the kernel of an empty output."""
