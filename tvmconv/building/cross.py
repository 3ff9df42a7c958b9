"""What building for another architecture needs: a linker, and TVM's runtime library for it.

Both come from pip where the system has none: the linker is the package ziglang, the library is in the
wheel of the very apache-tvm that is installed here, which pip fetches for the other architecture.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmconv import writing
from tvmconv.building import cache, toolchain
from tvmconv.building.toolchain import Check
from tvmconv.errors import BuildError, MissingToolError
from tvmconv.hardware import host

INSTALL_LINKER = "pip install 'tvmconv[cross]'"
_RUNTIME = "libtvm_runtime.so"
_INSIDE = "tvm/lib"  # the folder of the runtime libraries in the wheel


@dataclass(frozen=True)
class Cross:
    """How an architecture is called by GCC, by Zig (with the oldest glibc to run on), and by pip."""

    gcc: str
    zig: str
    wheels: str
    package: str


# glibc 2.28, because the wheels of NumPy and TVM that a board installs ask for it too.
_KNOWN = {
    "aarch64": Cross(
        gcc="aarch64-linux-gnu-gcc",
        zig="aarch64-linux-gnu.2.28",
        wheels="manylinux_2_28_aarch64",
        package="gcc-aarch64-linux-gnu",
    )
}


def linker(architecture: str) -> list[str] | None:
    """Return the command that links for ``architecture``: a GCC for it, else ziglang; None without."""
    known = _KNOWN[architecture]
    found = shutil.which(known.gcc)
    if found:
        return [found]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc", "-target", known.zig]
    return None


def check_linker(architecture: str) -> Check:
    """Something to link for ``architecture`` with."""
    known, found = _KNOWN[architecture], linker(architecture)
    return Check(
        f"{architecture} linker",
        found is not None,
        " ".join(found or [f"neither {known.gcc} nor ziglang"]),
        f"{architecture} boards",
        f"{INSTALL_LINKER}, or Debian, Ubuntu: apt install {known.package}",
    )


def check_runtime(architecture: str) -> Check:
    """TVM's runtime for ``architecture``: here already, or to be fetched when it is needed."""
    path = _runtime_path(architecture)
    found = str(path) if path.is_file() else "not fetched yet: the first build does it, with pip"
    return Check(f"{architecture} runtime", True, found, f"{architecture} boards")


def require(architecture: str, machine: str) -> None:
    """Raise unless kernels can be linked for ``architecture`` here, which ``machine`` has.

    BuildError for an architecture of which too little is known, MissingToolError without a linker.
    """
    if architecture == host.architecture():
        return
    if architecture not in _KNOWN:
        raise BuildError(
            f"{machine} is {architecture} and this machine is {host.architecture()}: there is no "
            f"apache-tvm wheel for {architecture} to take libtvm_runtime.so from, and no linker is known. "
            f"From here one builds for {', '.join(architectures())}; for {machine}, build on a machine "
            f"that is {architecture}."
        )
    toolchain.require(check_linker(architecture))


def architectures() -> list[str]:
    """Architectures that bundles can be built for on this machine, its own first."""
    return list(dict.fromkeys([host.architecture(), *_KNOWN]))


def link_for(architecture: str) -> Callable[..., None]:
    """Return TVM's ``fcompile`` for ``architecture``: it links objects into a shared library, stripped."""
    if architecture == host.architecture():
        return toolchain.link
    return functools.partial(_link, architecture)


def _link(architecture: str, output: str, objects: list[str], **_options: Any) -> None:
    command = linker(architecture)
    if command is None:
        toolchain.require(check_linker(architecture))
        return
    # TVM's kernels call exp, tanh and the like; a C compiler adds libm only when told.
    toolchain.run_linker([*command, "-shared", "-fPIC", "-s", "-o", output, *objects, "-lm"])


def runtime_library(architecture: str, name: str = _RUNTIME) -> Path:
    """Return a runtime library for ``architecture``, of the installed release of apache-tvm.

    Fetched once: the wheel (95 MB) is downloaded through pip, and the library (3 MB) kept in the cache
    directory. Raises MissingToolError with the command to run where that fails.
    """
    if architecture == host.architecture():
        return toolchain.runtime_library(name)
    path = _runtime_path(architecture).with_name(name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        wheels = sorted(path.parent.glob("apache_tvm-*.whl"))
        if wheels:  # somebody ran the command that the error below names
            _extract(wheels[0], path)
        else:
            _fetch(architecture, path)
    return path


def _runtime_path(architecture: str) -> Path:
    version = toolchain.tvm_version() or "none"
    return cache.directory() / "runtime" / version / architecture / _RUNTIME


def _fetch(architecture: str, path: Path) -> None:
    arguments = [
        *(
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--platform",
            _KNOWN[architecture].wheels,
        ),
        f"apache-tvm=={toolchain.tvm_version()}",
    ]
    with writing.scratch("tvmconv-runtime-") as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            *arguments,
            "-d",
            str(folder),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(folder.glob("*.whl"))
        if done.returncode != 0 or not wheels:
            lines = [line for line in done.stderr.splitlines() if "WARNING" not in line]
            raise MissingToolError(
                f"TVM's runtime library for {architecture} could not be fetched: "
                f"{lines[-1].strip() if lines else 'pip said nothing'}. Where there is a network run: "
                f"pip {' '.join(arguments)} --dest {path.parent}"
            )
        _extract(wheels[0], path)


def _extract(wheel: Path, path: Path) -> None:
    """Take the library out of the wheel, whole or not at all; zip checks its sum."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            writing.replace(path, archive.read(f"{_INSIDE}/{path.name}"))
    except (KeyError, zipfile.BadZipFile) as error:
        raise MissingToolError(
            f"{wheel} is damaged or holds no {path.name} ({error}): remove it and build again"
        ) from error
