"""NVIDIA GPUs from Turing on: architectures and cards as data, and their schedules."""

from __future__ import annotations

from tvmconv.hardware import HardwarePack
from tvmconv.schedules.cuda import machines

PACK = HardwarePack(
    name="cuda",
    machines=machines.MACHINES,
    schedules=(),
    aliases=machines.CARDS,
    unavailable=machines.UNAVAILABLE,
)
