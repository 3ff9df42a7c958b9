"""What device code a file holds, compared with NVIDIA's own reader of such files."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tvmconv.building.cuda import fatbin
from tvmconv.building.cuda import tools as cuda_tools
from tvmconv.building.cuda.fatbin import DeviceCode

SOURCE = "__global__ void f(int* x) { *x = 1; }\n"
needs_nvcc = pytest.mark.skipif(cuda_tools.nvcc() is None, reason="no nvcc here")


def compiled(folder, kind, *options):
    (folder / "f.cu").write_text(SOURCE)
    made = folder / f"f.{kind}"
    command = [cuda_tools.nvcc(), f"--{kind}", *options, "-o", made, folder / "f.cu"]
    subprocess.run(command, check=True, capture_output=True)
    return made


@needs_nvcc
@pytest.mark.skipif(cuda_tools.program("cuobjdump") is None, reason="no cuobjdump here")
def test_parts_are_those_that_cuobjdump_lists(tmp_path):
    made = compiled(
        tmp_path, "fatbin",
        "-gencode", "arch=compute_75,code=[sm_75,sm_80]",
        "-gencode", "arch=compute_89,code=[sm_89,compute_89]",
        "-gencode", "arch=compute_90,code=compute_90",
    )  # fmt: skip
    found = fatbin.device_code(b"\0" * 13 + made.read_bytes() + b"rest")

    command = [cuda_tools.program("cuobjdump"), "--list-elf", "--list-ptx", made]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert (
        found.cubins == set(re.findall(r"(sm_\d+)\.cubin", listed)) == {"sm_75", "sm_80", "sm_89"}
    )
    assert found.ptx == set(re.findall(r"(sm_\d+)\.ptx", listed)) == {"sm_89", "sm_90"}


def test_a_library_for_the_cpu_has_none(tmp_path):
    with open(shutil.which("sh"), "rb") as file:
        assert fatbin.device_code(file.read()) == DeviceCode(frozenset(), frozenset())
    assert fatbin.device_code(b"") == DeviceCode(frozenset(), frozenset())


@pytest.mark.parametrize("length", range(4, 80, 7))
def test_a_torn_fatbin_is_no_error(length):
    header = fatbin._HEADER.pack(fatbin._MAGIC, 1, 16, 1 << 40)
    part = fatbin._PART.pack(2, 1, 64, 1 << 30, 0, 0, 0, 90)

    assert fatbin.device_code((header + part + b"\0" * 64)[:length]).cubins <= {"sm_90"}
