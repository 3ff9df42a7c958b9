"""Finds the compilers of CUDA: nvcc, or NVRTC from pip packages; and what shows machine code."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tvmconv.building import toolchain
from tvmconv.building.toolchain import Check
from tvmconv.errors import MissingToolError
from tvmconv.hardware import Machine, cuda_driver
from tvmconv.hardware.cuda_driver import package_folders, toolkit_folders

# CUDA 13 throughout: its fatbins and runtime library are what libtvm_runtime_cuda.so was made for.
INSTALL = "pip install 'tvmconv[cuda-compiler]'"
NVRTC, NVFATBIN = "libnvrtc.so.13", "libnvfatbin.so.13"
NEEDED_FOR = "compiling for NVIDIA GPUs"
RUNTIME_NEEDED_FOR = "NVIDIA GPUs"


def nvcc() -> str | None:
    """NVIDIA's compiler, from PATH, a toolkit or a pip package; None without the C++ compiler it calls."""
    if not any(shutil.which(name) for name in ("g++", "gcc", "c++")):
        return None
    places = [os.environ.get("PATH", ""), *map(str, toolkit_folders("bin"))]
    places += map(str, package_folders("bin"))
    return shutil.which("nvcc", path=os.pathsep.join(places))


def library(name: str) -> Path | None:
    """A library of a pip package or toolkit by its file name."""
    folders = [*package_folders("lib"), *toolkit_folders("lib64"), *toolkit_folders("lib")]
    return next((path / name for path in folders if (path / name).is_file()), None)


def headers() -> list[Path]:
    """Folders of CUDA's headers for NVRTC, those of its C++ library among them."""
    folders = [*package_folders("include"), *toolkit_folders("include")]
    roots = [path for path in folders if (path / "cuda_fp16.h").is_file()]
    return [path for root in roots[:1] for path in (root, root / "cccl") if path.is_dir()]


def program(name: str) -> str | None:
    """A program of the toolkit or a pip package: cuobjdump, nvdisasm."""
    places = [os.environ.get("PATH", ""), *map(str, package_folders("bin"))]
    places += map(str, toolkit_folders("bin"))
    return shutil.which(name, path=os.pathsep.join(places))


def has_nvrtc() -> bool:
    """Whether NVRTC, what binds its code into a fatbin, and CUDA's headers are here."""
    return library(NVRTC) is not None and library(NVFATBIN) is not None and bool(headers())


def check_compiler() -> Check:
    """One of nvcc and NVRTC."""
    found = nvcc()
    if found is None and has_nvrtc():
        found = f"{library(NVRTC)} (NVRTC)"
    return Check("CUDA compiler", found is not None, found or "none", NEEDED_FOR, INSTALL)


def check_cudart() -> Check:
    """CUDA's runtime library, which TVM needs to hold device code as well as to run it."""
    try:
        cuda_driver.open_cudart()
    except MissingToolError as error:
        found, _, _ = str(error).partition(" To mend")
        return Check("CUDA runtime", False, found, RUNTIME_NEEDED_FOR, cuda_driver.INSTALL_RUNTIME)
    return Check("CUDA runtime", True, _opened(cuda_driver.CUDART), RUNTIME_NEEDED_FOR)


def require(machine: Machine) -> None:
    """Raise MissingToolError where what is made for a GPU, if the machine is one, cannot be made here."""
    if machine.gpu is not None:
        toolchain.require(check_compiler(), check_cudart())


def _opened(name: str) -> str:
    """The file that a library of this process came from; the library path may have another than pip's."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next((line.split(maxsplit=5)[-1] for line in lines if name in line), name)
