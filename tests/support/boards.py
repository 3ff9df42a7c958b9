"""The emulated board for tests: prepared once, or the reason why there is none."""

import functools
import subprocess
import sys
from pathlib import Path

import pytest

from tvmconv.building import cross

SCRIPT = Path(__file__).parents[2] / "scripts" / "emulated_board.py"
UNAVAILABLE = 69  # the script's exit code where something is missing on this machine


@functools.cache
def _prepared(cpu):
    return subprocess.run(
        [sys.executable, SCRIPT, "--cpu", cpu, "--prepare"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def require_linker():
    """Skip the test where nothing links for aarch64."""
    check = cross.check_linker("aarch64")
    if not check.ok:
        pytest.skip(f"{check.name}: {check.found}. {check.remedy}")


def command(cpu, *words):
    """What runs a command on the emulated board; skips the test where there is none."""
    done = _prepared(cpu)
    if done.returncode == UNAVAILABLE:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return [sys.executable, str(SCRIPT), "--cpu", cpu, "--", *map(str, words)]


def on_board(cpu, *words, timeout=240):
    """Run a command on the emulated board; skip the test where there is none."""
    return subprocess.run(
        command(cpu, *words), capture_output=True, text=True, timeout=timeout, check=False
    )
