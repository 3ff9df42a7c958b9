"""An ARM board that is not one: Debian's arm64 Python under QEMU's user-mode emulation.

    scripts/emulated_board --cpu cortex-a72 -- tvmconv verify kernels.tvmconv
    scripts/emulated_board --cpu max -- python -c 'import tvmconv; ...'
    scripts/emulated_board --with scipy -- python my_program.py

The board has what `pip install tvmconv` brings to a real one, tvmconv being that of this checkout, and
ml_dtypes for bfloat16; --with adds other packages from PyPI. Files are this machine's, under their own
paths. Times mean nothing there.

Nothing is installed into the system and no root is needed: apt-get fetches Debian's packages (40 MB)
with lists of its own, dpkg-deb unpacks them into the cache directory, pip fetches wheels for aarch64. The
emulator is the installed qemu-aarch64, else Debian's qemu-user-static, unpacked likewise; where QEMU_PLUGIN
names a plugin, as QEMU reads it, one that loads it. Exit code 69 says that something is missing here; any
other is the command's.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import board_files
from board_files import UnavailableError, checked, digest, once

UNAVAILABLE = 69  # EX_UNAVAILABLE of <sysexits.h>
NOT_FOUND = 127  # as a shell has it
# What Linux shows of these CPUs: implementer and part of the Main ID Register; "max" is QEMU's own.
CPUS = {
    "cortex-a53": ("0x41", "0xd03"),
    "cortex-a72": ("0x41", "0xd08"),
    "cortex-a76": ("0x41", "0xd0b"),
    "neoverse-n1": ("0x41", "0xd0c"),
    "max": ("0x00", "0x051"),
}


@dataclass(frozen=True)
class Board:
    """An unpacked board: the emulator, Debian's files, where Python finds modules."""

    cpu: str
    emulator: Path
    root: Path
    sites: tuple[Path, ...]
    home: Path  # of what belongs to this CPU and these modules: a view of the root, and a `python`

    @property
    def interpreter(self) -> Path:
        return board_files.interpreter(self.root)

    @property
    def python(self) -> Path:
        return self.home / "bin" / "python"

    def emulated(self, program: Path, name: str | Path) -> list[str]:
        """The command that runs an aarch64 program under the name that it is to see as its own."""
        environment = {
            "PYTHONHOME": self.root / "usr",
            "PYTHONPATH": os.pathsep.join(map(str, self.sites)),
            "PYTHONNOUSERSITE": "1",
        }
        return [
            str(self.emulator),
            *("-cpu", self.cpu, "-L", str(self.home / "view"), "-0", str(name)),
            *(part for key, value in environment.items() for part in ("-E", f"{key}={value}")),
            *("-U", "LD_PRELOAD", "-U", "LD_LIBRARY_PATH"),  # of this machine's architecture
            str(program),
        ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/emulated_board", description=__doc__.partition("\n")[0],
        usage="%(prog)s [--cpu CPU] [--with PACKAGE] [--prepare] -- COMMAND...",
    )  # fmt: skip
    parser.add_argument("--cpu", default="cortex-a72", choices=CPUS)
    parser.add_argument("--with", dest="packages", action="append", default=[], metavar="PACKAGE")
    parser.add_argument("--prepare", action="store_true", help="unpack what it needs, and stop")
    parser.add_argument("command", nargs="*")
    given = parser.parse_args(arguments)
    if not given.command and not given.prepare:
        parser.error("a command is needed, such as: -- tvmconv verify kernels.tvmconv")
    try:
        board = prepare(given.cpu, tuple(given.packages))
    except UnavailableError as error:
        print(f"error: {error}", file=sys.stderr)
        return UNAVAILABLE
    if given.prepare:
        print(f"emulated board: {board.python}")
        return 0
    command = on_board(board, given.command)
    if command is None:
        print(
            f"error: the emulated board has no {given.command[0]}: it has python, the scripts of tvmconv "
            "and of packages given with --with, and runs aarch64 programs by their path",
            file=sys.stderr,
        )
        return NOT_FOUND
    return os.execv(command[0], command)  # noqa: S606 - this process becomes the command


def on_board(board: Board, command: Sequence[str]) -> list[str] | None:
    """Find a command as a shell on the board would: Python, its scripts, Debian's programs, a path."""
    name, *arguments = command
    if name in ("python", "python3"):
        return [str(board.python), *arguments]
    for site in board.sites:
        if "/" not in name and (site / "bin" / name).is_file():
            return [str(board.python), str(site / "bin" / name), *arguments]
    program = Path(name) if "/" in name else board.root / "usr" / "bin" / name
    return [*board.emulated(program, name), *arguments] if program.is_file() else None


def prepare(cpu: str, packages: tuple[str, ...]) -> Board:
    """Return the board, having unpacked what of it is not in the cache yet."""
    cache = board_files.cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        emulator = board_files.emulator(cache)
        root = board_files.debian_root(cache)
        sites = board_files.sites(cache, root, packages)
        home = cache / f"cpu-{cpu}-{digest(str(emulator), str(root), *map(str, sites))}"
        board = Board(cpu, emulator, root, sites, home)
        once(home, lambda path: furnish(board, path))
        os.utime(home)
        board_files.forget_old(cache)
    return board


def furnish(board: Board, path: Path) -> None:
    """Make the board's ``python``, and a view of its root with the CPU's own /proc/cpuinfo.

    The emulator looks for every file in the view first and then on this machine, whose /proc/cpuinfo
    would show this machine's CPU.
    """
    view = path / "view"
    view.mkdir()
    for entry in board.root.iterdir():
        if entry.name != "proc":
            (view / entry.name).symlink_to(entry)
    (path / "bin").mkdir()
    command = " ".join(f"'{part}'" for part in board.emulated(board.interpreter, "NAME"))
    script = path / "bin" / "python"
    # Python takes the name it is called by for sys.executable, so what it starts again is emulated too.
    script.write_text(f'#!/bin/sh\nexec {command} "$@"\n'.replace("'NAME'", '"$0"'))
    script.chmod(0o755)
    (view / "proc").mkdir()
    trial = Board(board.cpu, board.emulator, board.root, board.sites, path)
    features = checked(
        [*trial.emulated(board.interpreter, script), "-c",
         "from tvmconv.hardware import host; print(*sorted(host.cpu_features()))"],
        f"the emulated {board.cpu} does not run",
    )  # fmt: skip
    maker, part = CPUS[board.cpu]
    core = (
        f"processor\t: %d\nBogoMIPS\t: 100.00\nFeatures\t: {features.strip()}\nCPU implementer\t: {maker}\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 0\n\n"
    )
    (view / "proc" / "cpuinfo").write_text("".join(core % n for n in range(os.cpu_count() or 1)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
