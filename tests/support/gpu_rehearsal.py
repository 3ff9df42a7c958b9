"""A GPU kernel's Python side, rehearsed on main memory where there is no GPU.

`Rehearsal` has the operations of `tvmconv.runtime.cuda.device.Gpu` on the CPU: TVM's own allocator and
compiled functions, and memmove. Tensors are in main memory and say that they are on ``cuda:0``. It serves
tests of what is made of times, for which the emulated driver's mean nothing.
"""

from __future__ import annotations

import ctypes

import numpy as np
import tvm_ffi
from tvm import te

from tvmconv.building.compile import compile_functions
from tvmconv.bundle import manifest
from tvmconv.compute import conv2d
from tvmconv.hardware.cuda_driver import Device
from tvmconv.lowering.interface import prim_func, with_interface
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import arrays
from tvmconv.runtime.cuda.device import Gpu
from tvmconv.runtime.cuda.kernel import GpuKernel

SPEC = ConvSpec.conv2d((2, 6, 5, 4), (3, 3, 4, 12), bias=True, activation="relu", residual=True)
BLOCK = 4


class Rehearsal(Gpu):
    """Operations of a GPU on main memory, done at once."""

    device_type = 1

    def __init__(self):
        self.device = Device(0, "main memory", (9, 0), 1, 0)
        self._find_functions()
        self._place = tvm_ffi.device("cpu:0")
        self._several = False
        self.allocated = []
        self.launches = []

    def empty(self, shape, dtype):
        self.allocated.append((shape, dtype))
        allocate = tvm_ffi.get_global_func("runtime.TVMTensorAllocWithScope")
        return allocate(tvm_ffi.Shape(shape), tvm_ffi.dtype(dtype), self._place, None)

    def copy(self, target, source, count, stream):
        ctypes.memmove(target, source, count)

    def fill(self, target, byte, count, stream):
        ctypes.memset(target, byte, count)

    def synchronize(self, stream):
        pass

    def is_capturing(self, stream):
        return False

    def launch(self, function, pointers, stream):
        self.launches.append(stream)
        function(*pointers)


class Tensor:
    """A tensor in main memory that says it is on a GPU."""

    def __init__(self, array):
        self.array = arrays.aligned_copy(array)

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, stream=None):
        assert stream == 1  # CUDA's default stream, as DLPack numbers it
        return self.array.__dlpack__()


class OnGpu(Tensor):
    """What `Gpu.upload` returns, in main memory."""

    def data_ptr(self):
        return arrays.data_address(self.array)

    @property
    def shape(self):
        return self.array.shape

    @property
    def dtype(self):
        return self.array.dtype.name


def tvm_functions(spec):
    """The kernel with its sums in a workspace, and the packing of its filter, in plain loops."""
    *inputs, out = conv2d.direct(spec, BLOCK)
    conv = next(tensor for tensor in _stages(out) if tensor.op.name == "conv")
    size = int(np.prod([int(extent) for extent in conv.shape]))
    func = te.create_prim_func([*inputs, conv, out])
    # The stage becomes an argument of one dimension, as the caller's workspace has.
    main = with_interface(func, {"conv": (size,)}, frozenset())
    return main, prim_func(conv2d.pack(spec, BLOCK)), 4 * size


def _stages(tensor):
    yield tensor
    for source in tensor.op.input_tensors:
        yield from _stages(source)


def kernel(gpu, spec=SPEC):
    """A `GpuKernel` that computes on the CPU."""
    main, pack, workspace = tvm_functions(spec)
    target = {"kind": "llvm"}
    module = compile_functions({"main": main, "pack": pack}, target).mod
    shape = conv2d.packed_filter_shape(spec, BLOCK)
    entry = manifest.KernelEntry(
        "main",
        "rehearsal",
        {},
        pack=manifest.PackEntry("pack", shape, spec.filter_dtype),
        workspace=workspace,
    )
    return GpuKernel(spec, entry, "rehearsal", module["main"], module["pack"], gpu)
