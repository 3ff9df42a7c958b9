"""NVIDIA GPUs from Turing on: architectures and cards as data, and their schedules."""

from __future__ import annotations

from tvmconv.hardware import HardwarePack
from tvmconv.schedules.cuda import conv2d_tensor, conv2d_tiled, depthwise_conv2d_tiled, machines

PACK = HardwarePack(
    name="cuda",
    machines=machines.MACHINES,
    schedules=(
        *conv2d_tensor.SCHEDULES,
        *conv2d_tiled.SCHEDULES,
        *depthwise_conv2d_tiled.SCHEDULES,
    ),
    aliases=machines.CARDS,
    unavailable=machines.UNAVAILABLE,
)
