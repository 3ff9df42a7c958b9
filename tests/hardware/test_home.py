"""A user without a home directory: kernels are built and run, and a warning says what to set."""

import os
import subprocess
import sys

from runtime_calls import ROOT

# As for a user id that no passwd entry has; becoming one takes root, and a Python that it may execute.
NOBODY = """
import pwd
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
"""
CODE = """
import numpy as np, tvmconv
x, w = np.ones((1, 6, 6, 8), np.float32), np.ones((3, 3, 8, 8), np.float32)
print(tvmconv.conv2d(x, w, 1, "SAME")[0, 3, 3, 0])
"""

MODEL = """
import numpy as np, tvmconv
from tvmconv.models.graph import Builder
b = Builder("one")
b.output("y", b.node("tanh", [b.input("x", (1, 4), "float32")]))
path = tvmconv.compile(b.graph(), output="one.tvmconv")
print(tvmconv.load(path)(np.zeros((1, 4), np.float32)).sum())
"""


def run(code, tmp_path):
    ours = ("HOME", "TVMCONV_CACHE_DIR", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    (tmp_path / "work").mkdir()
    (tmp_path / "temporary").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", NOBODY + code],
        cwd=tmp_path / "work",
        capture_output=True,
        text=True,
        timeout=120,
        env={**environment, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary")},
    )
    assert done.returncode == 0, done.stderr
    assert "TVMCONV_CACHE_DIR to a folder that stays" in done.stderr
    assert list((tmp_path / "temporary").iterdir()) == []
    return done.stdout


def test_a_user_without_home_gets_a_kernel_and_a_warning(tmp_path):
    assert run(CODE, tmp_path) == "72.0\n"


def test_a_user_without_home_compiles_a_model(tmp_path):
    assert run(MODEL, tmp_path) == "0.0\n"
