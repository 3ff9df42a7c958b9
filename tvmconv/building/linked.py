"""Checks of what was linked: that each file is for its machine, and how old a system may be to run it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tvmconv.building.cuda import fatbin
from tvmconv.errors import BuildError

if TYPE_CHECKING:
    from tvmconv.hardware import Machine


def check_device_code(library: Path, machine: Machine) -> None:
    """Raise BuildError unless a GPU's machine code, and PTX from there on, is in the library.

    TVM puts CUDA source in its place, and says nothing, where it cannot hold device code.
    """
    if machine.gpu is None:
        return
    arch, name = machine.gpu.arch, machine.name
    found = fatbin.device_code(library.read_bytes())
    if found.cubins != {arch} or arch not in found.ptx:
        cubins, ptx = (", ".join(sorted(archs)) or "none" for archs in (found.cubins, found.ptx))
        raise BuildError(
            f"{library.name}, made for {name}, has machine code for {cubins} and PTX for {ptx}, where both "
            f"must be for {arch}: `tvmconv doctor` tells which CUDA compiler was used"
        )


def checked_glibc(machine: Machine, libraries: Sequence[Path], *runtimes: Path) -> str | None:
    """Return the oldest glibc that all files run on, having checked that they suit the machine."""
    from tvmconv.building import (
        elf,  # needs NumPy and pyelftools, which `tvmconv build --help` does not
    )

    files = (*libraries, *runtimes)
    needs = [elf.needs(path) for path in files]
    for path, found in zip(files, needs, strict=True):
        if found.architecture != machine.architecture:
            raise BuildError(
                f"{path.name}, made for {machine.name}, is for {found.architecture}, not for "
                f"{machine.architecture}: `tvmconv doctor` tells which linker was used"
            )
    # The runtime is made for every CPU of the architecture, and asks the kernel before it uses more.
    kernels = needs[: len(libraries)]
    used = frozenset[str]().union(*(found.features or () for found in kernels))
    surplus = sorted(used - set(machine.features))
    if surplus:
        raise BuildError(
            f"kernels for {machine.name} use {', '.join(surplus)}, which its features do not list: a CPU "
            f"without would crash. Target and features of {machine.name} contradict each other; report "
            "it to who wrote its hardware pack"
        )
    return elf.newest([found.glibc for found in needs if found.glibc])
