"""The measuring process for GPUs on main memory, in this process or in one that `board` starts.

Wall clocks take the place of CUDA graphs: what is real is the rest.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import gpu_rehearsal
import numpy as np
from gpu_rehearsal import BLOCK, SPEC, OnGpu, Rehearsal

from tvmconv.building import toolchain
from tvmconv.building.compile import compile_functions
from tvmconv.compute import conv2d
from tvmconv.errors import DeviceError
from tvmconv.measuring.process import on_gpu
from tvmconv.measuring.process.candidate import Built
from tvmconv.measuring.process.worker import SpoiltError
from tvmconv.problem.spec import ConvSpec

MAINS = "mains.so"  # of `libraries`
OTHER = ConvSpec.conv2d((2, 6, 5, 4), (3, 3, 4, 12), bias=True, residual=True)  # without relu


class OnMain(Rehearsal):
    """Arrays that are uploaded or allocated in bytes say that they are on the GPU."""

    def upload(self, array):
        return OnGpu(array)

    def empty(self, shape, dtype):
        made = super().empty(shape, dtype)
        return OnGpu(np.zeros(shape, dtype)) if dtype == "uint8" else made

    def download(self, tensor):
        return tensor.array.copy() if isinstance(tensor, OnGpu) else np.from_dlpack(tensor).copy()


class WallClock:
    """Launches, one after the other, by this process's clock."""

    opened = closed = 0

    def __init__(self, gpu, launch, launches):
        launch(1)
        self.gpu, self.launch, self.launches = gpu, launch, launches
        WallClock.opened += 1

    def seconds(self, replays):
        begin = time.perf_counter()
        for _ in range(replays * self.launches):
            self.launch(1)
        return (time.perf_counter() - begin) / (replays * self.launches)

    def __enter__(self):
        return self

    def __exit__(self, *details):
        WallClock.closed += 1


def stand_on(gpu, machine, cache="warm"):
    return on_gpu.GpuTimer(gpu, machine, cache, WallClock)


def small(machine, l2_bytes):
    """The machine with so little L2, which a filling of main memory does not take long to replace."""
    return dataclasses.replace(machine, core=dataclasses.replace(machine.core, l2_bytes=l2_bytes))


def start(machine, _libraries, cache):
    """In place of `gpu_stand.start`, in a process of its own; main2 of `libraries` spoils it."""
    make, dead = on_gpu._kernel, []

    def kernel(spec, built, name, gpu):
        if Path(built.library).name == MAINS and built.symbol == "main2":
            dead.append(built.symbol)
        if dead:
            raise DeviceError("an illegal memory access was encountered")
        return make(spec, built, name, gpu)

    on_gpu._kernel = kernel
    return stand_on(OnMain(), small(machine, 64 << 10), cache)


def libraries(folder):
    """Libraries as the tuner makes them, for the CPU: right kernels but main1, which leaves out the ReLU."""

    def library(name, **functions):
        path = str(folder / name)
        compile_functions(functions, {"kind": "llvm"}).export_library(path, fcompile=toolchain.link)
        return path

    right, pack, workspace = gpu_rehearsal.tvm_functions(SPEC)
    wrong = gpu_rehearsal.tvm_functions(OTHER)[0]
    mains = library(MAINS, main0=right, main1=wrong, main2=right, main3=right)
    packing = library("pack.so", pack=pack)
    shape = conv2d.packed_filter_shape(SPEC, BLOCK)
    return [Built(mains, f"main{i}", packing, shape, "float32", workspace) for i in range(4)]


class Counting:
    """Says how many questions its process has had; one spoils it."""

    def __init__(self):
        self.asked = 0

    def ask(self, harm):
        self.asked += 1
        if harm:
            raise SpoiltError("an illegal memory access")
        return self.asked
