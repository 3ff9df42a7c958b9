"""NVIDIA GPUs from Turing on: architectures and cards as data, and their schedules."""

from __future__ import annotations

from tvmconv.hardware import HardwarePack
from tvmconv.schedules.cuda import conv2d, depthwise_conv2d, machines, tensor_conv2d

PACK = HardwarePack(
    name="cuda",
    machines=machines.MACHINES,
    schedules=(
        *tensor_conv2d.SCHEDULES,
        *conv2d.SCHEDULES,
        *depthwise_conv2d.SCHEDULES,
    ),
    aliases=machines.CARDS,
    unavailable=machines.UNAVAILABLE,
)
