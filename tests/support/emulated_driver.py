"""An emulated CUDA driver for tests: builds it, and gives the environment of processes that have it.

emulated_cuda/ is the driver (``libcuda.so.1``) and CUDA's runtime library (``libcudart.so.13``), emulated on
the CPU as strictly as the manuals read. `environment` puts them, and an nvcc that emulated_kernels.py wraps,
in front of the real ones: kernels that a process compiles in it run in every process that has it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import emulated_kernels
import pytest

SUPPORT = Path(__file__).parent
SOURCES = SUPPORT / "emulated_cuda"


def available() -> bool:
    """Whether nvcc, a C++ compiler and CUDA's headers are here."""
    return (
        shutil.which("g++") is not None
        and emulated_kernels.real_nvcc() is not None
        and (emulated_kernels.headers() or Path()).joinpath("cuda_runtime_api.h").exists()
    )


needs_emulation = pytest.mark.skipif(
    not available(), reason="the emulated driver needs nvcc, g++ and CUDA's headers"
)


@cache
def folder() -> Path:
    """Where the libraries, the wrapped nvcc and the kernels of this test process are."""
    made = Path(tempfile.mkdtemp(prefix="tvmconv-emulated-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    options = ["g++", "-O1", "-w", "-std=c++17", "-shared", "-fPIC"]
    options.append(f"-I{emulated_kernels.headers()}")
    parts = [str(path) for path in sorted(SOURCES.glob("*.cpp")) if path.stem != "libcudart"]
    _make([*options, "-Wl,-soname,libcuda.so.1", "-o", "libcuda.so.1", *parts, "-ldl"], made)
    versions = f"-Wl,-soname,libcudart.so.13,--version-script={SOURCES / 'libcudart.map'}"
    source = str(SOURCES / "libcudart.cpp")
    _make([*options, versions, "-o", "libcudart.so.13", source, "libcuda.so.1"], made)
    (made / "kernels").mkdir()
    (made / "bin").mkdir()
    nvcc = made / "bin" / "nvcc"
    nvcc.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" "{SUPPORT / "emulated_kernels.py"}" "$@"\n'
    )
    nvcc.chmod(0o755)
    return made


def _make(command: list[str], where: Path) -> None:
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]


def building() -> dict[str, str]:
    """Variables with which a process also compiles kernels for the emulated driver; it has none itself."""
    here = folder()
    return {
        "PATH": f"{here / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "EMULATED_NVCC_FOLDER": str(here / "bin"),
        "EMULATED_DRIVER": str(here / "libcuda.so.1"),
        "EMULATED_KERNELS": str(here / "kernels"),
    }


def environment(gpus: str = "sm_90", **more: str) -> dict[str, str]:
    """The environment of a process that has the emulated driver with these GPUs."""
    libraries = [str(folder()), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    paths = [str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        **building(),
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "PYTHONPATH": os.pathsep.join(paths),
        "EMULATED_GPUS": gpus,
        **more,
    }


def run(
    *arguments: str, gpus: str = "sm_90", timeout: float = 300, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments where the emulated driver is."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(gpus, **more),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
