"""Layers on a GPU for tests that need one, the emulated one of emulated_driver.py for example.

`test_emulated_gpu.py` runs the tests that are marked `needs_gpu` there. On a machine with a GPU and nvcc
plain pytest runs them.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
from contextlib import contextmanager

import numpy as np
import pytest

import tvmconv
from tvmconv import hardware
from tvmconv.building import builder
from tvmconv.building.cuda import tools as cuda_tools
from tvmconv.checking import oracle
from tvmconv.hardware import cuda_driver
from tvmconv.measuring.process import cuda_graphs
from tvmconv.problem.spec import ConvSpec
from tvmconv.records.choice import Selection
from tvmconv.runtime import arrays as arrays_of
from tvmconv.schedules.cuda import PACK

needs_gpu = pytest.mark.skipif(
    cuda_driver.driver() is None or cuda_tools.nvcc() is None,
    reason="no NVIDIA driver here, or no nvcc",
)

# Sums in two parts, added by a kernel of their own; by the blocks of a cluster, where the GPU has them, which
# take more than 48 KiB of shared memory; one without either; no outputs.
SPEC = ConvSpec.conv2d((2, 6, 5, 8), (3, 3, 8, 12), bias=True, activation="relu", residual=True)
LARGE = ConvSpec.conv2d((1, 9, 7, 64), (3, 3, 64, 40), bias=True, dtype="float16")
PLAIN = ConvSpec.depthwise_conv2d((1, 8, 9, 16), (3, 3, 16, 1))
EMPTY = ConvSpec.conv2d((0, 5, 5, 3), (3, 3, 3, 8))
SPECS = (SPEC, LARGE, PLAIN, EMPTY)
DECISIONS = {
    SPEC: {"rows": 64, "columns": 64, "inner": 16, "stages": 2, "splits": 2, "adding": "kernel"},
    LARGE: {
        "rows": 64,
        "columns": 64,
        "warps": "2x2",
        "slabs": 4,
        "stages": 4,
        "splits": 2,
        "adding": "cluster",
    },
}


def choice(spec, machine, decisions=None):
    """The first schedule that takes it, with these decisions or its default ones."""
    schedule = next(each for each in PACK.schedules if each.accepts(spec, machine))
    if decisions is not None and not schedule.legal(spec, machine, decisions):
        decisions = {**decisions, "adding": "kernel"}
        assert schedule.legal(spec, machine, decisions), (schedule.name, decisions)
    return Selection(spec, schedule, decisions or schedule.default(spec, machine), None)


def build(folder, arch, specs=SPECS):
    """A bundle of those layers for one architecture."""
    machine, _ = hardware.find_machine(arch)
    choices = {
        spec.key: choice(spec, machine, DECISIONS.get(spec)) for spec in specs if not spec.is_empty
    }
    request = builder.Request(machine, PACK, choices)
    return builder.build_requests(specs, [request], folder / f"{arch}.tvmconv")


def load(folder):
    """Those layers, loaded for the first GPU of this machine."""
    return tvmconv.load(build(folder, cuda_driver.devices()[0].arch), device="cuda")


def arguments(spec=SPEC):
    """Random arguments, and what must come out."""
    made = oracle.random_arguments(spec, seed=0)
    return made, oracle.conv(spec, **made)


def uploaded(gpu, arrays):
    """Arrays as tensors on a GPU."""
    return {name: gpu.upload(array) for name, array in arrays.items()}


def nothing(gpu, spec=SPEC):
    """A tensor for the output, of no numbers."""
    shape = spec.output_shape
    made = gpu.empty(shape, spec.out_dtype)
    gpu.fill(int(made.data_ptr()), 0xFF, math.prod(shape) * int(made.dtype.itemsize), 0)
    gpu.synchronize(0)
    return made


@contextmanager
def stream(gpu, flags=1):
    """A stream; of those that the default stream waits for with flags 0."""
    handle = ctypes.c_void_p()
    gpu.call("cudaStreamCreateWithFlags", ctypes.byref(handle), flags)
    yield handle.value
    gpu.call("cudaStreamDestroy", handle)


@contextmanager
def capture(gpu, flags=1):
    """A stream that captures for as long; what was captured is thrown away."""
    with stream(gpu, flags) as handle:
        where, graph = ctypes.c_void_p(handle), ctypes.c_void_p()
        gpu.call("cudaStreamBeginCapture", where, 1)
        try:
            yield handle
        finally:
            gpu.call("cudaStreamEndCapture", where, ctypes.byref(graph))
        gpu.call("cudaGraphDestroy", graph)


def graph_of(gpu, launch, launches=1):
    return cuda_graphs.Graph(gpu, launch, launches)


class _Managed(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32),
        ("index", ctypes.c_int32),
        ("dimensions", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


@dataclasses.dataclass
class Foreign:
    """Float32 on a tensor's memory, as another framework gives it; ``step`` is that of the last axis."""

    tensor: object
    shape: tuple[int, ...]
    device: tuple[int, int] = (2, 0)
    offset: int = 0
    step: int = 1
    code: tuple[int, int] = (2, 32)

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, stream=None):
        assert stream == 1  # CUDA's default stream, as DLPack numbers it
        strides = [self.step * math.prod(self.shape[at + 1 :]) for at in range(len(self.shape))]
        extents = ctypes.c_int64 * len(self.shape)
        self.kept = extents(*self.shape), extents(*strides)
        data = int(self.tensor.data_ptr()) + self.offset
        sizes = (len(self.shape), *self.code, 1, *self.kept, 0, None, None)
        self.made = _Managed(data, *self.device, *sizes)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(self.made), b"dltensor", None)


def numbers(gpu, count):
    """Room for so many float32 on a GPU."""
    return gpu.upload(np.zeros(count, np.float32))


def struct_at(pointer):
    """The DLTensor that a kernel is given the address of."""
    return arrays_of.DLTensor.from_address(pointer.value)
