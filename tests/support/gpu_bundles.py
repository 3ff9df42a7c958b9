"""Bundles for GPUs of an imaginary pack, made here without one; and the GPUs that they could run on."""

from __future__ import annotations

import pytest
from gpu_pack import SOURCE
from third_party import installed, write_pack

import tvmconv
from tvmconv.building.cuda import tools as cuda_tools
from tvmconv.hardware.cuda_driver import Device
from tvmconv.problem.spec import ConvSpec

needs_compiler = pytest.mark.skipif(
    not cuda_tools.check_compiler().ok or not cuda_tools.check_cudart().ok,
    reason="no CUDA compiler here: " + cuda_tools.INSTALL,
)

PLAIN = ConvSpec.conv2d((1, 5, 5, 8), (3, 3, 8, 16), bias=True, activation="relu")
SPLIT = ConvSpec.conv2d((1, 5, 5, 8), (1, 1, 8, 16), bias=True, residual=True)  # has a workspace
DEPTHWISE = ConvSpec.depthwise_conv2d((1, 5, 5, 8), (3, 3, 8, 1))
HALF = ConvSpec.conv2d((1, 5, 5, 8), (3, 3, 8, 16), dtype="float16")
EMPTY = ConvSpec.conv2d((0, 5, 5, 8), (3, 3, 8, 16))
SPECS = (PLAIN, SPLIT, DEPTHWISE, HALF, EMPTY)


def build(folder, machines, specs=SPECS):
    """Build ``specs`` for GPUs of the imaginary pack and CPUs into the new ``folder``/gpu.tvmconv."""
    write_pack(folder / "pack", "toygpu", SOURCE)
    with installed(folder / "pack"):
        return tvmconv.build(specs, machines, folder / "gpu.tvmconv", logs=[])


def device(name, capability, index=0):
    return Device(index, name, capability, 100, 16 << 30)


T4 = device("Tesla T4", (7, 5))
A100 = device("NVIDIA A100-SXM4-80GB", (8, 0))
RTX_3090 = device("NVIDIA GeForce RTX 3090", (8, 6))
H100 = device("NVIDIA H100 80GB HBM3", (9, 0))
H200 = device("NVIDIA H200", (9, 0))
B200 = device("NVIDIA B200", (10, 0))
V100 = device("Tesla V100-SXM2-16GB", (7, 0))
