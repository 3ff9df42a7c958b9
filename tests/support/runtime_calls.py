"""What the runtime's tests share: one bundle a process, arrays of every kind, new processes."""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import plain_bundle

ROOT = Path(__file__).parents[2]

PRESENTATIONS = (
    "plain", "reversed", "strided", "fortran", "element offset", "byte offset", "swapped",
    "read-only", "subclass",
)  # fmt: skip


def presented(array, how):
    """The same values as a fresh array that lies in memory in some other way."""
    if how == "reversed":
        return array[..., ::-1].copy()[..., ::-1]
    if how == "strided":
        wide = np.zeros((*array.shape[:-1], array.shape[-1] * 3), array.dtype)
        wide[..., 1::3] = array
        return wide[..., 1::3]
    if how == "fortran":
        return np.asfortranarray(array)
    if how in ("element offset", "byte offset"):
        offset = 1 if how == "byte offset" else array.itemsize
        raw = np.zeros(array.nbytes + 64 + offset, np.uint8)
        raw = raw[-raw.ctypes.data % 64 + offset :][: array.nbytes]
        view = raw.view(array.dtype).reshape(array.shape)
        view[...] = array
        return view
    if how == "swapped":
        return array.astype(array.dtype.newbyteorder())
    copy = array.copy()
    if how == "read-only":
        copy.flags.writeable = False
    return copy.view(np.recarray) if how == "subclass" else copy


@functools.cache
def shared_bundle():
    """A bundle of all specs; tests that change it copy it first."""
    folder = tempfile.mkdtemp(prefix="tvmconv-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return plain_bundle.build(Path(folder) / "kernels")


def in_new_process(code, *arguments, **environment):
    """Run Python code that prints JSON, in a process of its own; return what it printed."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
        **environment,
    }
    environment.pop("TVM_BIND_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
