"""64-bit ARM: NEON, with the machines and the boards that have them as data."""

from __future__ import annotations

from tvmconv.hardware import HardwarePack
from tvmconv.schedules.arm import (
    conv2d_columns,
    conv2d_direct,
    conv2d_dot,
    conv2d_inputs,
    conv2d_matrix,
    conv2d_winograd,
    depthwise_conv2d_dot,
    depthwise_conv2d_tiled,
    machines,
)

PACK = HardwarePack(
    name="arm",
    machines=machines.MACHINES,
    schedules=(
        *conv2d_inputs.SCHEDULES,
        *conv2d_columns.SCHEDULES,
        *conv2d_winograd.SCHEDULES,
        *conv2d_matrix.SCHEDULES,
        *conv2d_dot.SCHEDULES,
        *conv2d_direct.SCHEDULES,
        *depthwise_conv2d_dot.SCHEDULES,
        *depthwise_conv2d_tiled.SCHEDULES,
    ),
    detect=machines.detect,
    aliases=machines.BOARDS,
)
