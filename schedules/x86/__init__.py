"""x86-64: SSE4.2, AVX2 and AVX-512, with the machines as data."""

from __future__ import annotations

from tvmconv.hardware import HardwarePack
from tvmconv.schedules.x86 import (
    conv2d_amx,
    conv2d_columns,
    conv2d_direct,
    conv2d_dot,
    conv2d_inputs,
    conv2d_winograd,
    depthwise_conv2d_tiled,
    machines,
)

PACK = HardwarePack(
    name="x86",
    machines=machines.MACHINES,
    schedules=(
        *conv2d_inputs.SCHEDULES,
        *conv2d_columns.SCHEDULES,
        *conv2d_winograd.SCHEDULES,
        *conv2d_amx.SCHEDULES,
        *conv2d_dot.SCHEDULES,
        *conv2d_direct.SCHEDULES,
        *depthwise_conv2d_tiled.SCHEDULES,
    ),
    detect=machines.detect,
)
