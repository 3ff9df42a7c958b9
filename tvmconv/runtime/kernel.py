"""Compiled convolutions as Python callables: Kernel takes weights, BoundKernel has them packed.

Both may be called from several Python threads at once, and a call releases Python's global lock
while it computes.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tvmconv.bundle import manifest
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import arrays, pools, tensors

# What nearly every call does, by names that are found fast: 0.3 us an array less than `arrays.address`.
ndarray, addressof = np.ndarray, ctypes.addressof
from_buffer: Callable[[Any], ctypes.c_char] = ctypes.c_char.from_buffer
_MISALIGNED = 7  # of any element: an array that begins between goes the other way
# data, residual (None where the kernel has none) and out, whose addresses each call sets, and the
# pointers that the compiled function takes.
_Frame = tuple[
    arrays.DLTensor, arrays.DLTensor | None, arrays.DLTensor, tuple[ctypes.c_void_p, ...]
]


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """One compiled problem. Index a `Library` to get it.

    Attributes:
        spec: the problem.
        entry: how the manifest describes the kernel: schedule, decisions, tuning record.
        machine: the variant of the bundle that was chosen for this CPU.
        threads: how many threads a call uses.
        function: the compiled function, None when the output is empty.
        pack: the compiled function that packs the filter, None when the kernel takes it as it is.

    """

    spec: ConvSpec
    entry: manifest.KernelEntry
    machine: str
    threads: int
    function: Callable[..., Any] | None = dataclasses.field(repr=False)
    pack: Callable[..., Any] | None = dataclasses.field(repr=False)

    @property
    def key(self) -> str:
        """The problem in one line; see `ConvSpec.key`."""
        return self.spec.key

    @property
    def schedule(self) -> str:
        """Name of the schedule that the kernel was compiled with."""
        return self.entry.schedule

    @property
    def decisions(self) -> dict[str, Any]:
        """Values of the schedule's knobs."""
        return dict(self.entry.decisions)

    def bind(self, w: object, bias: object = None) -> BoundKernel:
        """Pack a filter of shape ``spec.filter_shape`` and a bias of ``spec.bias_shape`` once.

        Both are copied: changing the arrays afterwards does not change the layer. Raises ValueError
        and TypeError as `BoundKernel.__call__` does.
        """
        return BoundKernel(self, w, bias)

    def __call__(
        self,
        x: object,
        w: object,
        bias: object = None,
        residual: object = None,
        out: object = None,
    ) -> Any:
        """Compute one convolution, packing ``w`` first; where weights stay the same, `bind` them.

        Arguments, result and errors are those of `bind` and `BoundKernel.__call__`.
        """
        return BoundKernel(self, w, bias)(x, residual, out)


class BoundKernel:
    """A convolution layer: a kernel with its weights packed. `Kernel.bind` makes it."""

    __slots__ = (
        "_constants", "_direct", "_dtype", "_frames", "_function", "_has_residual", "_out", "_out_dtype",
        "_residual", "_threads", "_x", "_x_bytes", "_y_bytes", "kernel",
    )  # fmt: skip

    def __init__(self, kernel: Kernel, w: object, bias: object) -> None:
        spec, key = kernel.spec, kernel.key
        dtype, out_dtype = tensors.numpy_dtype(spec.dtype), tensors.numpy_dtype(spec.out_dtype)
        self.kernel = kernel
        self._dtype = dtype
        self._out_dtype = out_dtype
        self._threads = kernel.threads
        self._function = kernel.function or _compute_nothing
        self._has_residual = spec.residual
        self._x = arrays.Argument("x", key, spec.input_shape, dtype)
        self._residual = arrays.Argument("residual", key, spec.output_shape, out_dtype)
        self._out = arrays.Argument("out", key, spec.output_shape, out_dtype)
        self._x_bytes = math.prod(spec.input_shape) * dtype.itemsize
        self._y_bytes = math.prod(spec.output_shape) * out_dtype.itemsize
        # None never equals a shape: a kernel with a residual takes the other way.
        in_shape = None if spec.residual else spec.input_shape
        self._direct = (
            in_shape, dtype, self._x_bytes, spec.output_shape, out_dtype, self._y_bytes
        )  # fmt: skip
        filter_dtype = tensors.numpy_dtype(spec.filter_dtype)
        filter_ = arrays.Argument("w", key, spec.filter_shape, filter_dtype).readable(w)
        bias_argument = arrays.Argument("bias", key, spec.bias_shape, out_dtype)
        constants = [_packed(kernel, filter_)]
        if spec.bias:
            constants.append(arrays.aligned_copy(bias_argument.readable(bias)))
        else:
            bias_argument.refuse(bias)
        # Each struct with the array that it points to, which it does not keep alive.
        self._constants = [(_struct(array), array) for array in constants]
        self._frames: list[_Frame] = []

    def __repr__(self) -> str:
        return f"BoundKernel({self.kernel!r})"

    def __call__(self, x: object, residual: object = None, out: object = None) -> Any:
        """Compute the layer's output.

        Args:
            x: array of shape ``spec.input_shape`` and ``spec.dtype``: a NumPy array, or a CPU
                tensor of a framework with DLPack (torch, JAX, TensorFlow), taken without a copy. An
                array that is not C-contiguous, aligned and in native byte order is copied first.
            residual: array of shape ``spec.output_shape`` and ``spec.out_dtype``, if and only if the
                spec has a residual.
            out: NumPy array or torch tensor of that shape and dtype to write to, of any strides; it
                may overlap the inputs. Passing a C-contiguous one saves an allocation.

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
            addend = arrays.address(residual, shape, dtype, arrays.READABLE)
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
                or (addend and addend < end and target < addend + self._y_bytes)
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
        data, addend, target, pointers = self._new_frame()
        data.data, target.data = arrays.data_address(x), arrays.data_address(out)
        if addend is not None and residual is not None:
            addend.data = arrays.data_address(residual)
        # ctypes objects take attributes: the pointers keep alive what they point to.
        pointers[0].keep = (data, addend, target, self)  # type: ignore[attr-defined]
        return pointers

    def _call_any(self, x: object, residual: object, out: object) -> Any:
        """Compute from arguments of any kind that is allowed, or raise."""
        source = self._x.readable(x)
        addend = None
        if self._has_residual:
            addend = self._residual.readable(residual)
        else:
            self._residual.refuse(residual)
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
        data, residual, out, pointers = frame
        data.data = source
        if residual is not None:
            residual.data = addend
        out.data = target
        threads = self._threads
        if pools.current.threads == threads or pools.may_call(threads):
            self._function(*pointers)
        else:
            pools.call_elsewhere(threads, self._function, pointers)
        self._frames.append(frame)

    def _new_frame(self) -> _Frame:
        spec = self.kernel.spec
        image = (spec.batch, *spec.input_shape[-3:])
        result = (spec.batch, *spec.output_shape[-3:])
        data = arrays.tensor(image, self._dtype)
        residual = arrays.tensor(result, self._out_dtype) if spec.residual else None
        out = arrays.tensor(result, self._out_dtype)
        structs = [data, *(struct for struct, _ in self._constants)]
        structs += [out] if residual is None else [residual, out]
        return data, residual, out, tuple(arrays.pointer(struct) for struct in structs)


def _packed(kernel: Kernel, filter_: arrays.Array) -> arrays.Array:
    """Return a copy of the filter as the compiled function takes it."""
    entry = kernel.entry.pack
    if entry is None or kernel.pack is None:
        return arrays.aligned_copy(filter_)
    packed = arrays.empty_aligned(entry.shape, tensors.numpy_dtype(entry.dtype))
    source, target = _struct(filter_), _struct(packed)
    pointers = arrays.pointer(source), arrays.pointer(target)
    if pools.may_call(kernel.threads):
        kernel.pack(*pointers)
    else:
        pools.call_elsewhere(kernel.threads, kernel.pack, pointers)
    return packed


def _struct(array: arrays.Array) -> arrays.DLTensor:
    return arrays.tensor(array.shape, array.dtype, arrays.data_address(array))


def _compute_nothing(*_: object) -> None:
    """Stand in for the kernel of an empty output."""
