"""A user without a home directory: kernels are built and run, and a warning says what to set."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from runtime_calls import ROOT

CODE = """
import numpy as np, tvmconv
x, w = np.ones((1, 6, 6, 8), np.float32), np.ones((3, 3, 8, 8), np.float32)
print(tvmconv.conv2d(x, w, 1, "SAME")[0, 3, 3, 0])
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user who does not exist")
def test_a_user_without_home_gets_a_kernel_and_a_warning():
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "TVMCONV_CACHE_DIR")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("XDG_CACHE_HOME", None)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)  # noqa: S103 - the other user writes there
        done = subprocess.run(
            [sys.executable, "-c", CODE], user=12345, group=12345, extra_groups=[], cwd=folder,
            env={**environment, "TMPDIR": folder}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "72.0\n"), done.stderr
        assert "TVMCONV_CACHE_DIR to a folder that stays" in done.stderr
        assert list(Path(folder).iterdir()) == []
