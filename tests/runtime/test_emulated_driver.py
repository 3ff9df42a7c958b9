"""The emulated driver is as strict as CUDA's manuals: what it must do, and what it must refuse."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from unittest import mock

import emulated_driver
import pytest

from tvmconv.building.cuda import compiler as cuda_compiler

pytestmark = emulated_driver.needs_emulation
CASES = {
    name: file
    for file in sorted((Path(__file__).parents[1] / "support").glob("emulated_*_cases.py"))
    if file.stem != "emulated_gpu_cases"
    for name in re.findall(r"^def case_(\w+)", file.read_text(), re.M)
}

_BOUNDS = 'extern "C" __global__ void __launch_bounds__({}) {}(int* __restrict__ out) {{ {} }}\n'
KERNELS = "".join(
    _BOUNDS.format(*each)
    for each in (
        (64, "seven", "out[threadIdx.x] = 7;"),
        (
            32,
            "number",
            "int b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;"
            "int t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;"
            "out[b * 32 + t] = b * 32 + t;",
        ),
        (32, "deadlock", "if (threadIdx.x < 7) __syncthreads();"),
        (32, "vector", "*(int4*)out = make_int4(1, 2, 3, 4);"),
        (32, "fails", "__trap();"),
        (
            32,
            "shared",
            "extern __shared__ __align__(16) int words[]; if (!threadIdx.x) out[0] = words[25599];",
        ),
    )
)
CLUSTERS = _BOUNDS.replace("__launch", "__cluster_dims__(2, 1, 1) __launch").format(
    32, "pair", "out[blockIdx.x] = 7;"
)
DIE = {
    "the_host_cannot_touch_device_memory": (signal.SIGSEGV, ""),
    "writing_behind_an_allocation_is_noticed": (
        signal.SIGABRT,
        "seven writes beyond an allocation of 124 bytes",
    ),
}
SETTINGS = {
    "memory_ends": {"EMULATED_GPU_MEMORY": str(1 << 20)},
    "images_are_for_their_architectures": {"gpus": "sm_80,sm_86,sm_90,sm_75"},
    "devices_are_apart": {"gpus": "sm_90,sm_90"},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with the kernels' images by architecture."""
    folder = tmp_path_factory.mktemp("images")
    with mock.patch.dict(os.environ, emulated_driver.building()):
        for arch in ("sm_80", "sm_90"):
            code = KERNELS + (CLUSTERS if arch == "sm_90" else "")
            (folder / arch).write_bytes(cuda_compiler.compile_source(code, arch).image)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_the_emulated_driver(images, case):
    status, message = DIE.get(case, (0, ""))
    settings = {"EMULATED_IMAGES": str(images), **SETTINGS.get(case, {})}

    done = emulated_driver.run(str(CASES[case]), f"case_{case}", **settings)

    assert done.returncode == -status, done.stderr
    assert message in done.stderr
    assert ("so far" in done.stdout) == (case in DIE)
