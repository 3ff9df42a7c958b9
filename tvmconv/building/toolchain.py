"""What building needs besides this package, and whether it is here: versions, compiler, linker."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmconv.errors import INSTALL_COMPILER, BuildError, MissingToolError

# 0.1.15 makes MetaSchedule and tvm.ir.save_json of apache-tvm 0.27 crash with a segmentation fault.
_FFI_FROM, _FFI_BELOW = (0, 1, 14), (0, 1, 15)
_TVM = "0.27.0.post1"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: whether it is in order, what was found, what to do if not.

    ``needed_for`` names the commands that fail without it.
    """

    name: str
    ok: bool
    found: str
    needed_for: str
    remedy: str = ""


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split(".post")[0])[:3])


def check_ffi() -> Check:
    """apache-tvm-ffi: present and of a version that does not crash."""
    found = _version("apache-tvm-ffi")
    good = found is not None and _FFI_FROM <= _numbers(found) < _FFI_BELOW
    return Check(
        "apache-tvm-ffi",
        good,
        found or "not installed",
        "everything",
        "pip install 'apache-tvm-ffi>=0.1.14.post0,<0.1.15' (0.1.15 crashes the tuner of TVM 0.27)",
    )


def tvm_version() -> str | None:
    """Release of the installed apache-tvm."""
    return _version("apache-tvm")


def check_tvm() -> Check:
    """apache-tvm: exactly the release that schedules and lowering are written against."""
    found = tvm_version()
    return Check(
        "apache-tvm", found == _TVM, found or "not installed", "build, tune", INSTALL_COMPILER
    )


def check_xgboost() -> Check:
    """xgboost, under either of its two distribution names."""
    found = _version("xgboost-cpu") or _version("xgboost")
    present = importlib.util.find_spec("xgboost") is not None
    return Check("xgboost", present, found or "not installed", "tune", INSTALL_COMPILER)


def check_elftools() -> Check:
    """pyelftools, which reads from a linked library what it needs to run."""
    found = _version("pyelftools")
    return Check(
        "pyelftools", found is not None, found or "not installed", "build", INSTALL_COMPILER
    )


def linker() -> list[str] | None:
    """The command that links kernels into a shared library, or None.

    ``$CXX`` or ``$CC`` where set, else the first of g++, gcc, clang on PATH, else the Python package
    ziglang, which brings a whole linker to a machine that has none.
    """
    for candidate in (
        os.environ.get("CXX"),
        os.environ.get("CC"),
        "g++",
        "gcc",
        "clang++",
        "clang",
    ):
        found = shutil.which(candidate) if candidate else None
        if found:
            return [found]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "c++"]
    return None


def check_linker() -> Check:
    """Something to link with; TVM's LLVM does the compiling."""
    found = linker()
    remedy = "install one (Debian, Ubuntu: apt install g++), or without root: pip install ziglang"
    named = [f"${v}={os.environ[v]}" for v in ("CXX", "CC") if os.environ.get(v)]
    missing = f"none; {' '.join(named)} is not a program" if named else "none on PATH"
    return Check("C compiler", found is not None, " ".join(found or [missing]), "build", remedy)


def link(output: str, objects: list[str], **_options: Any) -> None:
    """Link object files into the shared library ``output``, stripped; TVM's ``fcompile`` interface.

    Raises MissingToolError without a linker, BuildError with its output when it fails.
    """
    command = linker()
    if command is None:
        require(check_linker())
        return
    run_linker([*command, "-shared", "-fPIC", "-s", "-o", output, *objects])


def run_linker(command: list[str]) -> None:
    """Run a linker; BuildError with its output when it fails."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(
            f"linking failed: {' '.join(command)}: {result.stderr.strip() or result.stdout.strip()}. "
            "`tvmconv doctor` checks the compiler."
        )


def checks() -> list[Check]:
    """Everything `doctor` reports on, in the order in which one would mend it."""
    return [check_ffi(), check_tvm(), check_xgboost(), check_elftools(), check_linker()]


def require(*needed: Check) -> None:
    """Raise MissingToolError that names the first of ``needed`` that is not in order."""
    for check in needed:
        if not check.ok:
            raise MissingToolError(
                f"{check.name} is needed for {check.needed_for}, found: {check.found}. "
                f"To mend it: {check.remedy}. `tvmconv doctor` checks the rest."
            )


def require_compiler() -> None:
    """Raise MissingToolError unless kernels can be compiled and linked here."""
    require(check_ffi(), check_tvm(), check_elftools(), check_linker())


def runtime_library(name: str = "libtvm_runtime.so") -> Path:
    """A runtime library of the installed apache-tvm."""
    spec = importlib.util.find_spec("tvm")
    locations = list(spec.submodule_search_locations or ()) if spec else []
    for location in locations:
        path = Path(location) / "lib" / name
        if path.is_file():
            return path
    raise MissingToolError(
        f"no {name} in {locations or 'any installed apache-tvm'}. To mend it: {INSTALL_COMPILER}"
    )
