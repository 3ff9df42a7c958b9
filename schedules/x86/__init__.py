"""x86-64: SSE4.2, AVX2 and AVX-512, with the machines as data."""

from __future__ import annotations

from tvmconv.hardware import HardwarePack
from tvmconv.schedules.x86 import (
    amx_conv2d,
    conv2d,
    depthwise_conv2d,
    dot_conv2d,
    machines,
    winograd,
)

PACK = HardwarePack(
    name="x86",
    machines=machines.MACHINES,
    schedules=(
        *winograd.SCHEDULES,
        *amx_conv2d.SCHEDULES,
        *dot_conv2d.SCHEDULES,
        *conv2d.SCHEDULES,
        *depthwise_conv2d.SCHEDULES,
    ),
    detect=machines.detect,
)
