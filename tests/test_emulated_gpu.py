"""The tests that need a GPU, on the emulated driver; without it they skip on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import emulated_driver
import pytest

pytestmark = emulated_driver.needs_emulation
TESTS = Path(__file__).parent


@pytest.mark.parametrize("name", ["test_gpu_kernel.py"])
def test_on_the_emulated_gpu(name):
    options = ["-q", "-rs", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = emulated_driver.run("-m", "pytest", *options, str(TESTS / name))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout, done.stdout
