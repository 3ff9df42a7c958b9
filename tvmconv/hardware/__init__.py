"""Machines and schedules as types, the packs that bring them, and what this machine is.

What packs import, and users of the tables; loaded when first used, since the runtime needs `host` and
`cuda_driver` only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvmconv.hardware.discovery import (
        ENTRY_POINTS,
        detect,
        find_machine,
        find_schedule,
        load_pack,
        pack_names,
        rediscover,
        schedules_for,
        working_packs,
    )
    from tvmconv.hardware.machine import Cpu, Gpu, Machine
    from tvmconv.hardware.pack import HardwarePack
    from tvmconv.hardware.schedule import (
        Choice,
        Decisions,
        Function,
        Knob,
        Schedule,
        check_decisions,
        require_indexable,
        space,
        unknown,
    )

__all__ = [
    "ENTRY_POINTS",
    "Choice",
    "Cpu",
    "Decisions",
    "Function",
    "Gpu",
    "HardwarePack",
    "Knob",
    "Machine",
    "Schedule",
    "check_decisions",
    "detect",
    "find_machine",
    "find_schedule",
    "load_pack",
    "pack_names",
    "rediscover",
    "require_indexable",
    "schedules_for",
    "space",
    "unknown",
    "working_packs",
]

_HOME = {
    **dict.fromkeys(("Cpu", "Gpu", "Machine"), "machine"),
    "HardwarePack": "pack",
    **dict.fromkeys(
        (
            "Choice",
            "Decisions",
            "Function",
            "Knob",
            "Schedule",
            "check_decisions",
            "require_indexable",
            "space",
            "unknown",
        ),
        "schedule",
    ),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'tvmconv.hardware' has no attribute {name!r}")
    home = importlib.import_module(f"tvmconv.hardware.{_HOME.get(name, 'discovery')}")
    value = getattr(home, name)
    globals()[name] = value  # the next access does not come here again
    return value
