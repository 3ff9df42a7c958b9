"""Processes that answer questions end with the one that asks, also when it is killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Stands in for an import of TVM: the parent is killed while its worker is busy with that.
SLOW_TO_IMPORT = """
import os, time
from pathlib import Path

Path({note!r}).write_text(str(os.getpid()))
time.sleep(30)
class Handler:
    pass
"""
ASKING = """
import sys, time
sys.path.insert(0, sys.argv[1])
class Named:
    '''Pickled by name, and imported in the worker alone.'''
    def __reduce__(self):
        import builtins
        return builtins.eval, ("__import__('slow_to_import').Handler",)
from tvmconv.measuring.process.worker import Worker
if __name__ == "__main__":
    Worker(Named(), ()).start()
    print("started", flush=True)
    time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_that_is_starting_ends_when_its_parent_is_killed(tmp_path):
    note, script = tmp_path / "pid", tmp_path / "asking.py"
    (tmp_path / "slow_to_import.py").write_text(SLOW_TO_IMPORT.format(note=str(note)))
    script.write_text(ASKING)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, script, tmp_path], env=environment, stdout=subprocess.PIPE
    ) as parent:
        for _ in range(300):
            if note.exists() and note.read_text():
                break
            time.sleep(0.1)
        worker = int(note.read_text())
        assert is_alive(worker)
        parent.kill()
    for _ in range(100):
        if not is_alive(worker):
            return
        time.sleep(0.02)
    os.kill(worker, 9)
    pytest.fail("it went on for 2 s")
