"""A real tracker of TVM's RPC, and boards that report to it, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from rpc_boards import Board, free_port

from tvmconv.measuring.places.boards import Boards

pytest_plugins = ("tuning_fixtures",)


@pytest.fixture(scope="module")
def tracker():
    """Its address, as the command line takes it."""
    for needed in ("tornado", "cloudpickle"):
        pytest.importorskip(needed, reason="TVM's tracker needs it: pip install 'tvmconv[rpc]'")
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "tvm.exec.rpc_tracker", "--host", "127.0.0.1",
         "--port", str(port), "--port-end", str(port + 1)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as running:  # fmt: skip
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert running.poll() is None
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
        os.killpg(running.pid, signal.SIGKILL)


@pytest.fixture
def start(tracker, tmp_path, request):
    """Start a board under this test's own key."""
    running = []

    def started(*command: object, key: str = "k") -> Board:
        running.append(Board(tracker, key + request.node.name, tmp_path, *command))
        running[-1].wait_until_known()
        return running[-1]

    yield started
    for board in running:
        board.end()


@pytest.fixture
def where(tracker, request):
    name, _, port = tracker.rpartition(":")
    return Boards((name, int(port)), f"k{request.node.name}")
