"""RISC-V with the vector extension, as a hardware pack of its own for tvmconv."""

from __future__ import annotations

from tvmconv.hardware import HardwarePack
from tvmconv_riscv import conv2d, depthwise_conv2d, machines

PACK = HardwarePack(
    name="riscv",
    machines=machines.MACHINES,
    schedules=(conv2d.TILED, depthwise_conv2d.TILED),
    detect=machines.detect,
)
