"""``tvmconv board`` as a process, for the tests of boards over a network."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Board:
    """``tvmconv board``, running, in a process group of its own."""

    def __init__(self, tracker: str, key: str, folder: Path, *start: object) -> None:
        command = start or (sys.executable, "-m", "tvmconv.cli")
        words = [*command, "board", "--tracker", tracker, "--key", key, "--port", 0]
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
