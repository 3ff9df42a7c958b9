"""``tvmconv board`` as a process, for the tests of boards over a network."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tvmconv.building import cross
from tvmconv.bundle import manifest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def runtime_alone(folder: Path, architecture: str) -> Path:
    """A directory in which there is nothing but TVM's runtime library, called as in a bundle."""
    folder.mkdir()
    name = manifest.runtime_name(architecture)
    shutil.copy(cross.runtime_library(architecture), folder / name)
    return folder


class Board:
    """``tvmconv board``, running, in a process group of its own.

    ``start`` is what runs ``tvmconv``, ``runtime`` a directory as a bundle's, with TVM's library alone.
    """

    def __init__(
        self, tracker: str, key: str, folder: Path, *start: object, runtime: Path | None = None
    ) -> None:
        command = start or (sys.executable, "-m", "tvmconv.commands.cli")
        words = [*command, "board", "--tracker", tracker, "--key", key, "--port", 0]
        words += ["--runtime", runtime] if runtime else []
        self.said = folder / f"board-{time.monotonic_ns()}.txt"
        with open(self.said, "w") as stream:
            self.process = subprocess.Popen(
                list(map(str, words)), stdout=stream, stderr=stream, start_new_session=True
            )

    def wait_until_known(self) -> None:
        for _ in range(600):
            if "the tracker knows this board" in self.said.read_text():
                return
            assert self.process.poll() is None, self.said.read_text()
            time.sleep(0.1)
        raise AssertionError(self.said.read_text())

    @property
    def clients(self) -> int:
        return self.said.read_text().count("is connected")

    def end(self, how: int = signal.SIGKILL) -> None:
        """The server alone, as a board that loses power; what it has started ends with it."""
        if self.process.poll() is None:
            os.kill(self.process.pid, how)
        self.process.wait(timeout=30)
