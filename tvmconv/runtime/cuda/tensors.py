"""Tensors in a GPU's memory, of any framework with DLPack, and the stream that the framework uses.

No framework is imported here: a tensor's framework is in ``sys.modules`` already. PyTorch and CuPy are asked
by their own functions, which are fast and know the current stream; the rest goes through DLPack, in CUDA's
default stream, for which DLPack has the giver of a tensor wait.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, ClassVar, NoReturn, Protocol

import numpy as np
import tvm_ffi

from tvmconv.runtime import arguments, tensors
from tvmconv.runtime.cuda.device import CUDA, Gpu

ALIGNMENT = 16  # bytes: what one thread loads at a time
_DEFAULT_STREAM, _DEFAULT_STREAM_IN_DLPACK = 0, 1
_DEVICE_NAMES = {1: "cpu", 2: "cuda", 3: "cuda_host", 13: "cuda_managed"}


@dataclasses.dataclass(frozen=True)
class View:
    """What a tensor says of itself; ``device`` is a type and a number."""

    shape: tuple[int, ...]
    dtype: str
    device: tuple[str, int]
    contiguous: bool
    address: int


@dataclasses.dataclass(frozen=True)
class Argument(arguments.Argument):
    """One array argument of a kernel on the GPU of number ``index``."""

    kind: ClassVar[str] = "a tensor"

    index: int


class Framework(Protocol):
    """How tensors of one framework are taken and made.

    ``writable`` tells whether they may be written to, ``allocates_in_captures`` whether the framework has
    memory for new ones while a stream is capturing.
    """

    writable: bool
    allocates_in_captures: bool

    def fast_address(self, value: Any, argument: Argument) -> int:
        """Where the data lies if the tensor can be used as it is, else 0."""

    def view(self, value: Any, name: str) -> View:
        """Everything that messages need; raises for a tensor that holds other values than its memory."""

    def stream(self, index: int) -> int:
        """The handle of the current stream of a device."""

    def empty(self, shape: tuple[int, ...], dtype: str, gpu: Gpu) -> tuple[Any, int]:
        """A new tensor and its address."""

    def result(self, tensor: Any, gpu: Gpu, stream: int) -> Any:
        """What a call returns for a tensor of `empty`, once the kernel is in the stream."""


class Torch:
    """PyTorch: its current stream, its allocator, which keeps memory apart for each CUDA graph."""

    writable = True
    allocates_in_captures = True

    def __init__(self) -> None:
        self._torch = sys.modules["torch"]
        self._dtypes: dict[str, Any] = {}

    def fast_address(self, value: Any, argument: Argument) -> int:  # noqa: D102
        if (
            value.dtype is self._dtype(argument.dtype)
            and value.shape == argument.shape
            and value.get_device() == argument.index
            and value.is_contiguous()
            and not value.requires_grad
            and not value.is_neg()
        ):
            return int(value.data_ptr())
        return 0

    def view(self, value: Any, name: str) -> View:  # noqa: D102
        if value.requires_grad:
            raise ValueError(
                f"{name} requires a gradient, which kernels do not compute: pass it with .detach()"
            )
        if value.layout is not self._torch.strided:
            raise TypeError(
                f"{name} is a tensor of layout {value.layout}: pass it with .to_dense()"
            )
        if value.is_neg():
            raise ValueError(f"{name} is a negated view: pass it with .resolve_neg()")
        device = (str(value.device.type), int(value.device.index or 0))
        dtype = str(value.dtype).removeprefix("torch.")
        return View(tuple(value.shape), dtype, device, value.is_contiguous(), value.data_ptr())

    def stream(self, index: int) -> int:  # noqa: D102
        return int(self._torch.cuda.current_stream(index).cuda_stream)

    def empty(self, shape: tuple[int, ...], dtype: str, gpu: Gpu) -> tuple[Any, int]:  # noqa: D102
        made = self._torch.empty(shape, dtype=self._dtype(dtype), device=f"cuda:{gpu.index}")
        return made, made.data_ptr()

    def result(self, tensor: Any, gpu: Gpu, stream: int) -> Any:  # noqa: D102
        return tensor

    def _dtype(self, name: str) -> Any:
        found = self._dtypes.get(name)
        return found or self._dtypes.setdefault(name, getattr(self._torch, name))


class Cupy:
    """CuPy: its current stream, its allocator."""

    writable = True
    allocates_in_captures = False

    def __init__(self) -> None:
        self._cupy = sys.modules["cupy"]

    def fast_address(self, value: Any, argument: Argument) -> int:  # noqa: D102
        if (
            value.shape == argument.shape
            and value.dtype.name == argument.dtype
            and value.device.id == argument.index
            and value.flags.c_contiguous
        ):
            return int(value.data.ptr)
        return 0

    def view(self, value: Any, name: str) -> View:  # noqa: D102
        flags, device = value.flags.c_contiguous, ("cuda", int(value.device.id))
        return View(tuple(value.shape), value.dtype.name, device, flags, int(value.data.ptr))

    def stream(self, index: int) -> int:  # noqa: D102
        with self._cupy.cuda.Device(index):
            return int(self._cupy.cuda.get_current_stream().ptr)

    def empty(self, shape: tuple[int, ...], dtype: str, gpu: Gpu) -> tuple[Any, int]:  # noqa: D102
        with self._cupy.cuda.Device(gpu.index):
            made = self._cupy.empty(shape, tensors.numpy_dtype(dtype))
        return made, int(made.data.ptr)

    def result(self, tensor: Any, gpu: Gpu, stream: int) -> Any:  # noqa: D102
        return tensor


class Exchange:
    """Any other giver of DLPack: JAX, TensorFlow, or TVM's own tensors, which the rest is returned as.

    JAX and TensorFlow have streams of their own that they do not show: they wait for the default stream,
    and we for its end, before a result is handed over.
    """

    allocates_in_captures = False

    def __init__(self, framework: str | None) -> None:
        self._framework = framework
        self.writable = framework is None

    def fast_address(self, value: Any, argument: Argument) -> int:  # noqa: D102
        return 0

    def view(self, value: Any, name: str) -> View:  # noqa: D102
        kind, index = (int(number) for number in value.__dlpack_device__())
        if kind != CUDA:
            # Not asked for its memory, which it would not give for a stream that its device has not.
            place = (_DEVICE_NAMES.get(kind, f"DLPack device {kind}"), index)
            return View((), "", place, True, 0)
        try:
            capsule = value.__dlpack__(stream=_DEFAULT_STREAM_IN_DLPACK)
            tensor = tvm_ffi.from_dlpack(capsule)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise TypeError(f"{name} does not give its memory through DLPack: {reason}") from error
        return View(
            tuple(tensor.shape),
            str(tensor.dtype),
            ("cuda", index),
            tensor.is_contiguous(),
            int(tensor.data_ptr()),
        )

    def stream(self, index: int) -> int:  # noqa: D102
        return _DEFAULT_STREAM

    def empty(self, shape: tuple[int, ...], dtype: str, gpu: Gpu) -> tuple[Any, int]:  # noqa: D102
        made = gpu.empty(shape, dtype)
        return made, int(made.data_ptr())

    def result(self, tensor: Any, gpu: Gpu, stream: int) -> Any:  # noqa: D102
        if self._framework is None:
            return tensor
        gpu.synchronize(stream)
        if self._framework == "jax":
            return sys.modules["jax"].dlpack.from_dlpack(tensor)
        return sys.modules["tensorflow"].experimental.dlpack.from_dlpack(tensor.__dlpack__())


_known: dict[type, Framework | None] = {}


def _of_type(kind: type) -> Framework | None:
    """The framework that has tensors of this type; None where they have no DLPack."""
    name = kind.__module__.partition(".")[0]
    known = tensors.FRAMEWORKS.get(name)
    if known == "torch":
        return Torch()
    if name == "cupy":
        return Cupy()
    if hasattr(kind, "__dlpack__") and hasattr(kind, "__dlpack_device__"):
        return Exchange(known)
    return None


def framework(value: object, argument: Argument) -> Framework:
    """Return how ``value`` is taken; ValueError for a NumPy array, TypeError for no tensor at all."""
    if isinstance(value, np.ndarray):
        _elsewhere(argument, "a NumPy array, in main memory")
    kind = type(value)
    found = _known[kind] if kind in _known else _known.setdefault(kind, _of_type(kind))
    if found is None:
        raise TypeError(
            f"{argument.name} of {argument.key} must be a tensor on cuda:{argument.index} with DLPack, as "
            f"PyTorch, CuPy and JAX have, {type(value).__name__} was given"
        )
    return found


def address(value: Any, argument: Argument, found: Framework) -> int:
    """Return where the data lies, or raise: a GPU kernel takes a tensor as it is, or not at all.

    ValueError for a tensor of another device or shape, with gaps, or that does not begin at a multiple of
    16 bytes; TypeError for another dtype.
    """
    direct = found.fast_address(value, argument)
    if direct and not direct % ALIGNMENT:
        return direct
    return _checked(value, argument, found)


def _checked(value: Any, argument: Argument, found: Framework) -> int:
    name = f"{argument.name} of {argument.key}"
    view = found.view(value, name)
    if view.device != ("cuda", argument.index):
        kind, number = view.device
        _elsewhere(argument, f"on {kind}:{number}" if kind == "cuda" else f"in {kind} memory")
    if view.shape != argument.shape:
        raise ValueError(
            f"{name} must have shape {argument.shape}, shape {view.shape} was given: a kernel serves one "
            "problem; build one for yours: tvmconv build"
        )
    if view.dtype != argument.dtype:
        raise TypeError(
            f"{name} must have dtype {argument.dtype}, dtype {view.dtype} was given: convert it"
        )
    if not view.contiguous:
        raise ValueError(
            f"{name} is not contiguous in the order of its shape, as a kernel reads it: pass "
            f"{argument.name}.contiguous(), and tensors that PyTorch keeps in channels_last as "
            f"{argument.name}.permute(0, 2, 3, 1)"
        )
    if view.address % ALIGNMENT and 0 not in argument.shape:
        raise ValueError(
            f"{name} begins at address {view.address:#x}, no multiple of {ALIGNMENT} bytes, as slices may: "
            f"pass a copy, e.g. {argument.name}.clone()"
        )
    return view.address


def _elsewhere(argument: Argument, where: str) -> NoReturn:
    raise ValueError(
        f"{argument.name} of {argument.key} is {where}, and the kernel runs on cuda:{argument.index}: move "
        f"it there, e.g. torch.as_tensor({argument.name}, device='cuda:{argument.index}') or "
        f"cupy.asarray({argument.name}), or load the bundle for where it is"
    )
