"""The tests that need a GPU, on the emulated driver; and what a GPU's tests cannot ask of a GPU."""

from __future__ import annotations

import os
import re
from pathlib import Path
from unittest import mock

import emulated_driver
import gpu_layers
import pytest

pytestmark = emulated_driver.needs_emulation
SUPPORT = Path(__file__).parents[1] / "support"
CASES = SUPPORT / "emulated_gpu_cases.py"
SETTINGS = {
    "memory_that_runs_out_is_an_error_and_the_rest_goes_on": {
        "EMULATED_GPU_MEMORY": str(2 << 20),
    },
    "another_gpu_than_the_first": {"gpus": "sm_90,sm_90"},
    "an_older_gpu": {"gpus": "sm_80"},
    "a_newer_gpu_compiles_the_ptx": {"gpus": "sm_100"},
}


@pytest.mark.parametrize("name", ["runtime/test_gpu_kernel.py", "checking/test_gpu_check.py"])
def test_on_the_emulated_gpu(name):
    options = ["-q", "-rs", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = emulated_driver.run("-m", "pytest", *options, str(SUPPORT.parent / name))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout, done.stdout


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    with mock.patch.dict(os.environ, emulated_driver.building()):
        return gpu_layers.build(tmp_path_factory.mktemp("layers"), "sm_90")


@pytest.mark.parametrize("case", re.findall(r"^def case_(\w+)", CASES.read_text(), re.M))
def test_a_bundle_where(bundle, case):
    settings = {"BUNDLE": str(bundle), **SETTINGS.get(case, {})}
    done = emulated_driver.run(str(CASES), f"case_{case}", **settings)

    assert (done.returncode, done.stderr) == (0, "")


def test_verify_blames_the_kernel_that_failed_alone(bundle):
    code = "import sys; from tvmconv.commands.cli import main; sys.exit(main())"
    fault = {"EMULATED_FAULT": f"{gpu_layers.LARGE.key}_kernel"}
    done = emulated_driver.run("-c", code, "verify", str(bundle), **fault)

    assert done.returncode == 1, done.stderr
    lines = [line.partition(" (")[0] for line in done.stdout.splitlines()]
    assert lines[:3] == ["WRONG", "NOT CHECKED", "NOT CHECKED"], done.stdout
    assert f"since {gpu_layers.LARGE.key} failed" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 of 4 kernels for sm_90 are right")
