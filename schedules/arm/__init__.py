"""64-bit ARM: NEON, with the machines and the boards that have them as data."""

from __future__ import annotations

from tvmconv.hardware import HardwarePack
from tvmconv.schedules.arm import (
    conv2d,
    depthwise_conv2d,
    dot_conv2d,
    dot_depthwise_conv2d,
    machines,
    matrix_conv2d,
    winograd,
)

PACK = HardwarePack(
    name="arm",
    machines=machines.MACHINES,
    schedules=(
        *winograd.SCHEDULES,
        *matrix_conv2d.SCHEDULES,
        *dot_conv2d.SCHEDULES,
        *conv2d.SCHEDULES,
        *dot_depthwise_conv2d.SCHEDULES,
        *depthwise_conv2d.SCHEDULES,
    ),
    detect=machines.detect,
    aliases=machines.BOARDS,
)
