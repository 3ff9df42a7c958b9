"""What the emulated board is made of: Debian's packages for arm64, wheels for aarch64, this checkout.

All of it is unpacked into the cache directory; scripts/emulated_board.py says how and why.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ("pyproject.toml", "README.md", "tvmconv", "schedules", "tuning_logs")
PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")  # and what they depend on
EMULATOR = "qemu-aarch64-static"
EXTRA_WHEELS = ("ml_dtypes",)  # bfloat16
# As far back as a glibc of 2.28 goes; pip does not infer older names from newer ones.
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
WEEK = 7 * 24 * 3600  # seconds that an unused installation of an older tvmconv is kept


class UnavailableError(Exception):
    """Something that the board is made of cannot be had here."""


def say(what: str) -> None:
    print(what, file=sys.stderr)


def cache_directory() -> Path:
    """As tvmconv.building.cache.directory has it, which this script, run by any Python, cannot import."""
    given = os.environ.get("TVMCONV_CACHE_DIR")
    users = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(given) if given else Path(users) / "tvmconv") / "board"


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def once(path: Path, make: Callable[[Path], None]) -> Path:
    """Make a folder, whole or not at all, unless it is there."""
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
            part = Path(scratch) / "made"
            part.mkdir()
            make(part)
            part.rename(path)
    return path


def checked(command: Sequence[str | Path], what: str) -> str:
    """Run a command; UnavailableError with its last words if it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line[:1] != "W"]
        last = " ".join(lines[-3:]) or f"exit code {done.returncode}"
        raise UnavailableError(f"{what}: {Path(command[0]).name} says: {last}")
    return done.stdout


# Debian's packages


@contextlib.contextmanager
def debian(architecture: str, scratch: Path) -> Iterator[list[str]]:
    """An apt-get of its own for an architecture, with the system's sources and keys, no root needed."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise UnavailableError(
                f"{tool} is not here, which unpacks Debian's packages for the emulated board: arm64's "
                f"{', '.join(PACKAGES)}, and the emulator qemu-user-static"
            )
    (scratch / "lists" / "partial").mkdir(parents=True)
    (scratch / "cache" / "archives" / "partial").mkdir(parents=True)
    (scratch / "status").touch()
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "",
        "Dir::State": scratch,
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
    }
    options = (part for name, value in settings.items() for part in ("-o", f"{name}={value}"))
    apt = ["apt-get", "-q", "-y", *options]
    checked([*apt, "update"], f"no lists of Debian's {architecture} packages")
    yield apt


def unpack(archives: Path, path: Path) -> None:
    for archive in sorted(archives.glob("*.deb")):
        checked(["dpkg-deb", "-x", archive, path], "a package cannot be unpacked")


def unpack_root(path: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch, debian("arm64", Path(scratch)) as apt:
        say("unpacking Debian's arm64 Python for the emulated board ...")
        install = [*apt, "--no-install-recommends", "--download-only", "install", *PACKAGES]
        checked(install, f"Debian's {', '.join(PACKAGES)} for arm64 cannot be had")
        unpack(Path(scratch) / "cache" / "archives", path)


def interpreter(root: Path) -> Path:
    return next((root / "usr" / "bin").glob("python3.*"))


def debian_root(cache: Path) -> Path:
    return once(cache / f"root-{digest(*PACKAGES)}", unpack_root)


def emulator(cache: Path) -> Path:
    # The statically linked one cannot load plugins, and would pass over them without a word.
    plugins = "QEMU_PLUGIN" in os.environ
    for name in ("qemu-aarch64",) if plugins else (EMULATOR, "qemu-aarch64"):
        found = shutil.which(name)
        if found and (not plugins or "-plugin" in checked([found, "--help"], "no emulator")):
            return Path(found)
    if plugins:
        raise UnavailableError(
            "QEMU_PLUGIN is set, but no qemu-aarch64 on PATH loads plugins: apt-get install qemu-user"
        )
    return once(cache / "qemu", unpack_emulator) / EMULATOR


def unpack_emulator(path: Path) -> None:
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")
    with tempfile.TemporaryDirectory() as scratch, debian(architecture, Path(scratch)) as apt:
        say("unpacking Debian's qemu-user-static ...")
        install = [
            *apt,
            "--no-install-recommends",
            "--download-only",
            "install",
            "qemu-user-static",
        ]
        checked(install, "no emulator: install qemu-user-static")
        unpack(Path(scratch) / "cache" / "archives", Path(scratch) / "files")
        # One of the 40 emulators that are in the package.
        shutil.copy(Path(scratch) / "files" / "usr" / "bin" / EMULATOR, path)


# Python's packages


def pip(what: str, *arguments: str | Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise UnavailableError(
            f"{sys.executable} has no pip, which fetches the board's wheels: see scripts/test"
        )
    checked([sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments], what)


def unpack_wheels(path: Path, names: Sequence[str], version: str) -> None:
    """Fetch packages with all that they depend on, for aarch64 and the board's Python."""
    say(f"fetching {', '.join(names)} for the emulated board ...")
    platforms = (part for name in PLATFORMS for part in ("--platform", f"{name}_aarch64"))
    pip(
        f"{', '.join(names)} cannot be had for aarch64",
        *("install", "--no-compile", "--only-binary=:all:", "--python-version", version),
        *platforms, "--target", path, *names,
    )  # fmt: skip


def sites(cache: Path, root: Path, packages: tuple[str, ...]) -> tuple[Path, ...]:
    """Where the board's Python finds modules: this checkout, what it needs, and ``packages``."""
    version = interpreter(root).name.removeprefix("python")
    own = own_package(cache)
    wheels = [
        once(
            cache / f"wheels-{digest(version, *names)}",
            lambda path, names=names: unpack_wheels(path, names, version),
        )
        for names in ((*requirements(own), *EXTRA_WHEELS), packages)
        if names
    ]
    return (own, *wheels)


def own_package(cache: Path) -> Path:
    """Install this checkout's tvmconv, as pip would on the board; once for each state of its files."""
    files = [
        file
        for name in PROJECT
        for file in ([ROOT / name] if (ROOT / name).is_file() else sorted((ROOT / name).rglob("*")))
        if file.is_file() and "__pycache__" not in file.parts
    ]
    contents = (f"{file.relative_to(ROOT)} {digest(file.read_bytes().hex())}" for file in files)
    path = once(cache / f"tvmconv-{digest(*contents)}", install_checkout)
    os.utime(path)
    return path


def forget_old(cache: Path) -> None:
    """Remove what was made of checkouts that nobody has used for a week."""
    for old in (*cache.glob("tvmconv-*"), *cache.glob("cpu-*")):
        if time.time() - old.stat().st_mtime > WEEK:
            shutil.rmtree(old)


def install_checkout(path: Path) -> None:
    say("installing this checkout's tvmconv on the emulated board ...")
    with tempfile.TemporaryDirectory() as scratch:
        source, wheels = Path(scratch) / "source", Path(scratch) / "wheels"
        source.mkdir()
        for name in PROJECT:  # a copy, because building leaves files behind
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, source / name)
        pip("tvmconv cannot be built", "wheel", "--no-deps", "--wheel-dir", wheels, source)
        (wheel,) = wheels.glob("*.whl")
        pip("tvmconv", "install", "--no-deps", "--no-compile", "--target", path, wheel)


def requirements(site: Path) -> tuple[str, ...]:
    """What the installed tvmconv asks for itself, without extras."""
    (metadata,) = site.glob("tvmconv-*.dist-info/METADATA")
    needed = (line.partition(": ") for line in metadata.read_text().splitlines())
    return tuple(
        value for name, _, value in needed if name == "Requires-Dist" and "extra ==" not in value
    )
