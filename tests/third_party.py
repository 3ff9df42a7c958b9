"""Hardware packs of imaginary third parties: real, tiny distributions in a directory."""

from __future__ import annotations

from pathlib import Path

# A pack whose machines and schedules are those of x86 under other names.
BORROWED = """
import dataclasses
from tvmconv.hardware import HardwarePack
from tvmconv.schedules.x86 import PACK as X86

MACHINES = tuple(
    dataclasses.replace(machine, name=f"{prefix}-{{machine.name}}") for machine in X86.machines
)
PACK = HardwarePack(name="{name}", machines=MACHINES, schedules=X86.schedules)
"""


def write_pack(directory: Path, name: str, source: str, value: str | None = None) -> Path:
    """Write distribution ``NAME-pack`` 1.0 with module ``NAME_pack`` and its entry point.

    Returns ``directory``, which has to get onto ``sys.path``.
    """
    (directory / f"{name}_pack.py").write_text(source)
    info = directory / f"{name}_pack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-pack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[tvmconv.hardware]\n{name} = {value or f'{name}_pack:PACK'}\n"
    )
    return directory
