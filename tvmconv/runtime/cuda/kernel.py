"""Compiled convolutions on a GPU: GpuKernel takes weights, BoundGpuKernel has them packed.

They take tensors where they are and never copy one. A call puts kernels into the caller's current stream and
returns before they have run. Both may be called from several Python threads at once.
"""

from __future__ import annotations

import ctypes
import dataclasses
import threading
from collections.abc import Mapping
from typing import Any

from tvmconv import errors
from tvmconv.problem.calling import Operand, Role
from tvmconv.problem.quantized import LIMITS, SCALES
from tvmconv.runtime import arrays
from tvmconv.runtime.compiled import BoundLayer, CompiledKernel
from tvmconv.runtime.cuda import tensors
from tvmconv.runtime.cuda.device import Gpu
from tvmconv.runtime.cuda.tensors import Argument

# data, residual, workspace (None where the kernel has none) and out, whose addresses each call sets, and
# the pointers that the compiled function takes.
_Frame = tuple[
    arrays.DLTensor,
    arrays.DLTensor | None,
    arrays.DLTensor | None,
    arrays.DLTensor,
    tuple[ctypes.c_void_p, ...],
]


@dataclasses.dataclass(frozen=True, eq=False)
class GpuKernel(CompiledKernel):
    """One compiled problem on a GPU. Index a `GpuLibrary` to get it.

    Attributes:
        spec, entry, machine, function, pack: as in `CompiledKernel`.
        gpu: where it runs.

    """

    gpu: Gpu

    def bind(
        self,
        w: object,
        bias: object = None,
        slopes: object = None,
        scales: object = None,
        limits: object = None,
    ) -> BoundGpuKernel:
        """Pack a filter of shape ``spec.filter_shape``, bias and slopes of ``spec.bias_shape``, on the GPU.

        All are copied: changing the tensors afterwards does not change the layer. Waits until that is
        done. A quantised spec takes ``scales`` and ``limits`` too, as `Kernel.bind`. Raises as
        `BoundGpuKernel.__call__` does, and DeviceError while the stream is capturing.
        """
        return BoundGpuKernel(
            self, {"filter": w, "bias": bias, "slopes": slopes, SCALES: scales, LIMITS: limits}
        )


class BoundGpuKernel(BoundLayer):
    """A convolution layer on a GPU: a kernel with its weights packed. `GpuKernel.bind` makes it."""

    kernel: GpuKernel

    def __init__(self, kernel: GpuKernel, constants: Mapping[str, object]) -> None:
        """``constants`` are what users gave, by the names of operands."""
        signature, gpu = kernel.signature, kernel.gpu
        self.kernel = kernel
        self._gpu = gpu
        self._x, self._residual, self._out = (
            self._argument(signature[name]) for name in ("data", "residual", "out")
        )
        self._x_bytes, self._y_bytes = signature["data"].bytes, signature["out"].bytes
        self._residual_bytes = signature["residual"].bytes
        self._frames: list[_Frame] = []
        self._scratch = signature["workspace"]
        self._workspaces: dict[int, Any] = {}
        self._launching = threading.Lock()
        self._called = False
        self._constants = self._copied(constants)

    def _argument(self, operand: Operand) -> Argument:
        return Argument.of(operand, self.kernel.key, self._gpu.index)

    def __call__(self, x: object, residual: object = None, out: object = None) -> Any:
        """Compute the layer's output in the current stream of the framework that ``x`` belongs to.

        Args:
            x: tensor on the kernel's GPU of shape ``spec.input_shape`` and ``spec.dtype``, of PyTorch,
                CuPy, JAX or anything else with DLPack. It must be contiguous in the order of its shape
                and begin at a multiple of 16 bytes: nothing is ever copied.
            residual: tensor of shape ``spec.residual_shape`` and ``spec.out_dtype``, if and only if the
                spec has a residual.
            out: tensor of ``spec.output_shape`` and that dtype to write to, apart from the inputs. With
                it a call allocates nothing, and can be captured in a CUDA graph once the layer has been
                called.

        Returns:
            ``out`` if given; else a new tensor of the framework of ``x``. Like every operation on a GPU
            it is ready for what follows in the same stream.

        Raises:
            ValueError: a tensor of another device (a NumPy array among them) or shape, with gaps or
                misaligned; an ``out`` that overlaps an input; a residual missing or given without need.
            TypeError: not a tensor, or one of another dtype.
            DeviceError: too little memory on the GPU, a first call while the stream is capturing, or a
                launch that CUDA refuses.

        """
        found = tensors.framework(x, self._x)
        source = tensors.address(x, self._x, found)
        addend = self._addend(residual)
        stream = found.stream(self._gpu.index)
        if out is not None:
            target = self._target(out, source, addend)
            self.run_at(source, addend, target, stream)
            return out
        if not found.allocates_in_captures:
            self._refuse_capture(stream, "an output must be allocated: make one and pass it as out")
        result, target = found.empty(self._out.shape, self._out.dtype, self._gpu)
        self.run_at(source, addend, target, stream)
        return found.result(result, self._gpu, stream)

    def _addend(self, residual: object) -> int:
        if not self._residual.is_given(residual):
            return 0
        found = tensors.framework(residual, self._residual)
        return tensors.address(residual, self._residual, found)

    def _target(self, out: object, source: int, addend: int) -> int:
        found = tensors.framework(out, self._out)
        if not found.writable:
            raise TypeError(
                f"out of {self.kernel.key} is a {type(out).__name__}, whose framework never writes to a "
                "tensor: leave it out, the result is returned"
            )
        target = tensors.address(out, self._out, found)
        end = target + self._y_bytes
        if (source < end and target < source + self._x_bytes) or (
            addend and addend < end and target < addend + self._residual_bytes
        ):
            raise ValueError(
                f"out of {self.kernel.key} overlaps an input, which other threads of the kernel still "
                "read: pass another tensor"
            )
        return target

    def run_at(self, source: int, addend: int, target: int, stream: int) -> None:
        """Put the kernel into a stream, for addresses in the GPU's memory that nobody checks.

        Of data, residual (0 where the kernel has none) and output; the stream as CUDA's handle.
        """
        function = self.kernel.function
        if function is None:  # an empty output
            return
        if not self._called:
            self._refuse_capture(
                stream, "its code is loaded in the first call: call the layer once"
            )
        # Each running call has structs of its own; list.pop and append are atomic.
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = self._new_frame()
        data, residual, workspace, out, pointers = frame
        data.data, out.data = source, target
        if residual is not None:
            residual.data = addend
        if workspace is None:
            self._gpu.launch(function, pointers, stream)
        else:
            workspace.data = self._workspace_of(stream)
            # Kernels of two threads must not take turns in one stream, and so in one workspace.
            with self._launching:
                self._gpu.launch(function, pointers, stream)
        self._called = True
        self._frames.append(frame)

    def _workspace_of(self, stream: int) -> int:
        """Address of the scratch memory for calls in that stream, allocated in the first.

        A stream that captures without one takes the layer's spare: a capture runs in a stream that the
        framework makes for it, in which nobody can call the layer before.
        """
        found = self._workspaces.get(stream)
        if found is None:
            if self._gpu.is_capturing(stream):
                found = self._spare
            else:
                made = self._empty(self._scratch)
                found = self._workspaces.setdefault(stream, made)
        return int(found.data_ptr())

    def _refuse_capture(self, stream: int, why: str) -> None:
        if self._gpu.is_capturing(stream):
            raise errors.DeviceError(
                f"the stream in which {self.kernel.key} was called is capturing, and {why} before the capture"
            )

    def _empty(self, operand: Operand) -> Any:
        return self._gpu.empty(operand.taken_shape, operand.taken_dtype)

    def _struct(self, operand: Operand, address: int = 0) -> arrays.DLTensor:
        return self._gpu.tensor(operand.taken_shape, operand.taken_dtype, address)

    def _copied(self, constants: Mapping[str, object]) -> dict[str, tuple[arrays.DLTensor, Any]]:
        """Return constants as the function takes them: by name, each struct with what it points to."""
        gpu, stream = self._gpu, None
        sources: list[tuple[Operand, int]] = []
        for operand in self.kernel.signature.of(Role.CONSTANT):
            value, argument = constants[operand.name], self._argument(operand)
            if argument.is_given(value):
                found = tensors.framework(value, argument)
                sources.append((operand, tensors.address(value, argument, found)))
                stream = found.stream(gpu.index) if stream is None else stream  # the filter's
        assert stream is not None  # noqa: S101 - every kernel has a filter
        self._refuse_capture(
            stream, "weights are packed and memory is allocated when they are bound: bind"
        )
        made = {each.name: self._constant(each, source, stream) for each, source in sources}
        self._spare: Any = self._empty(self._scratch) if self._scratch.present else None
        gpu.synchronize(stream)  # calls may come in other streams
        return made

    def _constant(self, operand: Operand, source: int, stream: int) -> tuple[arrays.DLTensor, Any]:
        gpu, pack = self._gpu, self.kernel.pack
        made = self._empty(operand)
        target = self._struct(operand, int(made.data_ptr()))
        if operand.packed and pack is not None:
            plain = gpu.tensor(operand.shape, operand.dtype, source)
            gpu.launch(pack, (arrays.pointer(plain), arrays.pointer(target)), stream)
        elif operand.bytes:
            gpu.copy(target.data, source, operand.bytes, stream)
        return target, made

    def _new_frame(self) -> _Frame:
        signature = self.kernel.signature
        varying = {
            each.name: self._struct(each)
            for each in signature.taken
            if each.role is not Role.CONSTANT
        }
        constants = {name: struct for name, (struct, _) in self._constants.items()}
        pointers = tuple(
            arrays.pointer(each) for each in signature.ordered({**varying, **constants})
        )
        data, out = varying["data"], varying["out"]
        return data, varying.get("residual"), varying.get("workspace"), out, pointers
