"""What a built library needs to run: architecture, glibc, and the CPU extensions its code uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from tvmconv.building import extensions
from tvmconv.errors import BuildError

# As ``platform.machine()`` spells them; others are named as the ELF header does, EM_ARM.
_ARCHITECTURES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64", "EM_RISCV": "riscv64"}
_GLIBC = "GLIBC_"


@dataclass(frozen=True)
class Needs:
    """What a library needs of the machine that opens it.

    ``glibc`` is the newest release that a symbol of it is bound to, like "2.27", None without any.
    ``features`` are /proc/cpuinfo's names of extensions that its code uses, for aarch64; for others,
    whose instructions are not read, None.
    """

    architecture: str
    glibc: str | None
    features: frozenset[str] | None


def needs(path: str | os.PathLike[str]) -> Needs:
    """Read a shared library; raises BuildError when it is none."""
    try:
        with open(path, "rb") as file:
            image = ELFFile(file)
            machine = image["e_machine"]
            architecture = _ARCHITECTURES.get(machine, machine)
            if image.elfclass == 32:
                architecture += ", 32-bit"
            features = _used(image) if architecture == "aarch64" else None
            return Needs(architecture, newest(_glibcs(image)), features)
    except (ELFError, OSError) as error:
        raise BuildError(f"{path} is no shared library: {error}. Run: tvmconv doctor") from error


def newest(releases: Iterator[str] | list[str]) -> str | None:
    """Return the highest of dotted numbers, None of none: 2.17 and 2.4 give 2.17."""
    return max(releases, key=lambda text: [int(part) for part in text.split(".")], default=None)


def _glibcs(image: ELFFile) -> Iterator[str]:
    for section in image.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            for _, symbols in section.iter_versions():
                for symbol in symbols:
                    number = symbol.name.removeprefix(_GLIBC)
                    if number != symbol.name and number[:1].isdigit():  # not GLIBC_PRIVATE
                        yield number


def _used(image: ELFFile) -> frozenset[str]:
    section = image.get_section_by_name(".text")
    return extensions.used(section.data() if section else b"")
