"""A user without a home directory: kernels are built and run, and a warning says what to set."""

import os
import subprocess
import sys

from runtime_calls import ROOT

# As for a user id that no passwd entry has; becoming one takes root, and a Python that it may execute.
CODE = """
import pwd
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
import numpy as np, tvmconv
x, w = np.ones((1, 6, 6, 8), np.float32), np.ones((3, 3, 8, 8), np.float32)
print(tvmconv.conv2d(x, w, 1, "SAME")[0, 3, 3, 0])
"""


def test_a_user_without_home_gets_a_kernel_and_a_warning(tmp_path):
    ours = ("HOME", "TVMCONV_CACHE_DIR", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**environment, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "72.0\n"), done.stderr
    assert "TVMCONV_CACHE_DIR to a folder that stays" in done.stderr
    assert list(tmp_path.iterdir()) == []
