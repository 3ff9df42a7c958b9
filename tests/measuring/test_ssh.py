"""Boards behind an ssh tunnel: a real sshd, whose side of it is 127.0.0.2.

"Here" is 127.0.0.1 and "the board" 127.0.0.2, both with the same ports, so nothing but the tunnel connects
the tuner with the board's server, or that with the tracker.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from rpc_boards import free_port
from tuners import POINTWISE, only_x86, workload

from tvmconv.commands import cli
from tvmconv.records import log

pytest_plugins = ("rpc_fixtures",)
pytestmark = [only_x86, pytest.mark.slow, pytest.mark.timeout(300)]
BOARD = "127.0.0.2"
# Of the board alone: whoever has no key of this folder is refused.
CONFIG = """
ListenAddress {board}:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/allowed
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding yes
GatewayPorts clientspecified
"""


@dataclass(frozen=True)
class Way:
    """How to reach the board with ssh."""

    folder: Path
    port: int

    def command(self, *options: object, key: str = "mine") -> list[str]:
        words = ["ssh", "-F", "none", "-p", self.port, "-i", self.folder / key]
        for option in (
            f"UserKnownHostsFile={self.folder}/known", "StrictHostKeyChecking=yes", "BatchMode=yes",
            "IdentitiesOnly=yes", "IdentityAgent=none", "ExitOnForwardFailure=yes",
        ):  # fmt: skip
            words += ["-o", option]
        return list(map(str, [*words, *options]))


def opens(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def until(condition, said: Path) -> None:
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(said.read_text())


@pytest.fixture
def sshd(tmp_path):
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        pytest.skip(
            "sshd, ssh or ssh-keygen is missing: apt-get install openssh-server openssh-client"
        )
    way = Way(tmp_path, free_port())
    for name in ("host", "mine", "other"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True
        )
    public = (tmp_path / "host.pub").read_text()
    (tmp_path / "known").write_text(f"[{BOARD}]:{way.port} {public}")
    shutil.copy(tmp_path / "mine.pub", tmp_path / "allowed")
    config = tmp_path / "config"
    config.write_text(CONFIG.format(board=BOARD, port=way.port, folder=tmp_path))
    if os.geteuid() == 0:  # what the service's script makes of it on a machine that boots
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    said = tmp_path / "sshd.txt"
    with (
        open(said, "w") as stream,
        subprocess.Popen([program, "-D", "-e", "-f", config], stderr=stream) as running,
    ):
        until(lambda: opens((BOARD, way.port)), said)
        yield way
        running.terminate()


def test_tuning_goes_through_the_tunnel_of_the_docs_and_no_other_way(
    packs, tracker, sshd, tmp_path, capsys
):
    port, of_tracker = free_port(), int(tracker.rpartition(":")[2])
    board = [sys.executable, "-m", "tvmconv.commands.cli", "board", "--tracker", f"{BOARD}:{of_tracker}",
             "--key", "ssh", "--host", BOARD, "--port", port]  # fmt: skip
    tunnel = sshd.command(
        "-tt",
        *("-R", f"{BOARD}:{of_tracker}:127.0.0.1:{of_tracker}"),
        *("-L", f"127.0.0.1:{port}:{BOARD}:{port}"),
        f"{getpass.getuser()}@{BOARD}",
        *board,
    )
    assert not opens((BOARD, of_tracker))
    said = tmp_path / "ssh.txt"
    with (
        open(said, "w") as stream,
        subprocess.Popen(tunnel, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream) as ssh,
    ):
        until(lambda: "the tracker knows this board" in said.read_text(), said)
        words = ["tune", workload(tmp_path, POINTWISE), "--machine", "slow-default", "--trials", 6]
        words += ["--output", tmp_path / "logs", "--rpc-tracker", tracker, "--rpc-key", "ssh"]
        assert cli.main(list(map(str, words))) == 0, capsys.readouterr().err
        assert opens((BOARD, port))
        ssh.terminate()
        ssh.wait(30)

    (entry,) = log.read_log(tmp_path / "logs" / "slow-default" / "conv2d.jsonl")
    assert (entry.record.place, entry.record.board) == ("rpc", "ssh")
    assert entry.record.trials == 6
    # Without ssh neither side reaches the other, and the board's server ends with it.
    addresses = ("127.0.0.1", port), (BOARD, of_tracker), (BOARD, port)
    until(lambda: not any(map(opens, addresses)), said)


def test_a_stranger_gets_no_tunnel(sshd):
    done = subprocess.run(
        sshd.command("-N", f"{getpass.getuser()}@{BOARD}", key="other"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr
