"""Compiled convolutions on a GPU: GpuKernel takes weights, BoundGpuKernel has them packed.

They take tensors where they are and never copy one. A call puts kernels into the caller's current stream and
returns before they have run. Both may be called from several Python threads at once.
"""

from __future__ import annotations

import ctypes
import dataclasses
import threading
from collections.abc import Callable
from typing import Any

from tvmconv import errors
from tvmconv.bundle import manifest
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import arrays
from tvmconv.runtime.cuda import tensors
from tvmconv.runtime.cuda.device import Gpu, size
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
_WORDS = 4  # bytes of an element of the workspace


@dataclasses.dataclass(frozen=True, eq=False)
class GpuKernel:
    """One compiled problem on a GPU. Index a `GpuLibrary` to get it.

    Attributes:
        spec: the problem.
        entry: how the manifest describes the kernel: schedule, decisions, tuning record.
        machine: the variant of the bundle that was chosen for this GPU.
        gpu: where it runs.
        function: the compiled function, None when the output is empty.
        pack: the compiled function that packs the filter, None when the kernel takes it as it is.

    """

    spec: ConvSpec
    entry: manifest.KernelEntry
    machine: str
    gpu: Gpu
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

    def bind(self, w: object, bias: object = None) -> BoundGpuKernel:
        """Pack a filter of shape ``spec.filter_shape`` and a bias of ``spec.bias_shape`` once, on the GPU.

        Both are copied: changing the tensors afterwards does not change the layer. Waits until that is
        done. Raises as `BoundGpuKernel.__call__` does, and DeviceError while the stream is capturing.
        """
        return BoundGpuKernel(self, w, bias)

    def __call__(
        self,
        x: object,
        w: object,
        bias: object = None,
        residual: object = None,
        out: object = None,
    ) -> Any:
        """Compute one convolution, packing ``w`` first; where weights stay the same, `bind` them.

        Arguments, result and errors are those of `bind` and `BoundGpuKernel.__call__`.
        """
        return BoundGpuKernel(self, w, bias)(x, residual, out)


class BoundGpuKernel:
    """A convolution layer on a GPU: a kernel with its weights packed. `GpuKernel.bind` makes it."""

    def __init__(self, kernel: GpuKernel, w: object, bias: object) -> None:
        spec, key, gpu = kernel.spec, kernel.key, kernel.gpu
        self.kernel = kernel
        self._gpu = gpu
        self._x = Argument("x", key, spec.input_shape, spec.dtype, gpu.index)
        self._residual = Argument("residual", key, spec.output_shape, spec.out_dtype, gpu.index)
        self._out = Argument("out", key, spec.output_shape, spec.out_dtype, gpu.index)
        self._x_bytes = size(spec.input_shape, spec.dtype)
        self._y_bytes = size(spec.output_shape, spec.out_dtype)
        self._frames: list[_Frame] = []
        self._workspace = kernel.entry.workspace // _WORDS
        self._workspaces: dict[int, Any] = {}
        self._launching = threading.Lock()
        self._called = False
        self._constants = self._copied(w, bias)

    def __repr__(self) -> str:
        return f"BoundGpuKernel({self.kernel!r})"

    def __call__(self, x: object, residual: object = None, out: object = None) -> Any:
        """Compute the layer's output in the current stream of the framework that ``x`` belongs to.

        Args:
            x: tensor on the kernel's GPU of shape ``spec.input_shape`` and ``spec.dtype``, of PyTorch,
                CuPy, JAX or anything else with DLPack. It must be contiguous in the order of its shape
                and begin at a multiple of 16 bytes: nothing is ever copied.
            residual: tensor of shape ``spec.output_shape`` and ``spec.out_dtype``, if and only if the
                spec has a residual.
            out: tensor of that shape and dtype to write to, apart from the inputs. With it a call
                allocates nothing, and can be captured in a CUDA graph once the layer has been called.

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
        if not self.kernel.spec.residual:
            self._residual.refuse(residual)
            return 0
        if residual is None:
            raise ValueError(
                f"{self.kernel.key} was built with residual, but none was given: pass a tensor of shape "
                f"{self._residual.shape} and dtype {self._residual.dtype}"
            )
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
            addend and addend < end and target < addend + self._y_bytes
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
                made = self._gpu.empty((self._workspace,), "float32")
                found = self._workspaces.setdefault(stream, made)
        return int(found.data_ptr())

    def _refuse_capture(self, stream: int, why: str) -> None:
        if self._gpu.is_capturing(stream):
            raise errors.DeviceError(
                f"the stream in which {self.kernel.key} was called is capturing, and {why} before the capture"
            )

    def _copied(self, w: object, bias: object) -> list[tuple[arrays.DLTensor, Any]]:
        """Return filter and bias as the function takes them: each struct with what it points to."""
        spec, gpu = self.kernel.spec, self._gpu
        argument = Argument("w", spec.key, spec.filter_shape, spec.filter_dtype, gpu.index)
        found = tensors.framework(w, argument)
        source = tensors.address(w, argument, found)
        addends = Argument("bias", spec.key, spec.bias_shape, spec.out_dtype, gpu.index)
        if not spec.bias:
            addends.refuse(bias)
        elif bias is None:
            raise ValueError(
                f"{spec.key} was built with bias, but none was given: pass a tensor of shape "
                f"{addends.shape} and dtype {addends.dtype}"
            )
        begin = 0
        if spec.bias:
            begin = tensors.address(bias, addends, tensors.framework(bias, addends))
        stream = found.stream(gpu.index)
        self._refuse_capture(
            stream, "weights are packed and memory is allocated when they are bound: bind"
        )
        constants = [self._packed(source, stream)]
        if spec.bias:
            constants.append(self._copy(spec.bias_shape, spec.out_dtype, begin, stream))
        self._spare: Any = gpu.empty((self._workspace,), "float32") if self._workspace else None
        gpu.synchronize(stream)  # calls may come in other streams
        return constants

    def _packed(self, source: int, stream: int) -> tuple[arrays.DLTensor, Any]:
        spec, gpu, entry = self.kernel.spec, self._gpu, self.kernel.entry.pack
        if entry is None or self.kernel.pack is None:
            return self._copy(spec.filter_shape, spec.filter_dtype, source, stream)
        made = gpu.empty(entry.shape, entry.dtype)
        plain = gpu.tensor(spec.filter_shape, spec.filter_dtype, source)
        packed = gpu.tensor(entry.shape, entry.dtype, int(made.data_ptr()))
        gpu.launch(self.kernel.pack, (arrays.pointer(plain), arrays.pointer(packed)), stream)
        return packed, made

    def _copy(
        self, shape: tuple[int, ...], dtype: str, source: int, stream: int
    ) -> tuple[arrays.DLTensor, Any]:
        made = self._gpu.empty(shape, dtype)
        target = int(made.data_ptr())
        if size(shape, dtype):
            self._gpu.copy(target, source, size(shape, dtype), stream)
        return self._gpu.tensor(shape, dtype, target), made

    def _new_frame(self) -> _Frame:
        spec, gpu = self.kernel.spec, self._gpu
        data = gpu.tensor((spec.batch, *spec.input_shape[-3:]), spec.dtype)
        result = (spec.batch, *spec.output_shape[-3:])
        residual = gpu.tensor(result, spec.out_dtype) if spec.residual else None
        workspace = gpu.tensor((self._workspace,), "float32") if self._workspace else None
        out = gpu.tensor(result, spec.out_dtype)
        structs = [data, *(struct for struct, _ in self._constants)]
        structs += [each for each in (residual, workspace) if each is not None]
        pointers = tuple(arrays.pointer(struct) for struct in (*structs, out))
        return data, residual, workspace, out, pointers
