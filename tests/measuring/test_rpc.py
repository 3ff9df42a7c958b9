"""Boards over TVM's RPC: a real tracker and real servers on loopback, one of them lost in the middle."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import boards
import inference_venv
import pytest
from rpc_boards import Board, free_port, runtime_alone
from tuners import POINTWISE, default_of, only_x86, workload

from tvmconv import hardware
from tvmconv.commands import cli
from tvmconv.errors import TuningError
from tvmconv.hardware import host
from tvmconv.measuring.process.candidate import Candidate
from tvmconv.records import log
from tvmconv.tuning.search import all_candidates

pytest_plugins = ("rpc_fixtures",)
pytestmark = [only_x86, pytest.mark.slow, pytest.mark.timeout(600)]
# As `tvmconv board`, but every measurement takes half a second more, as on a slow board.
SLOW = """
import sys, time
from tvmconv.commands import cli
from tvmconv.measuring.places import board_server as serving
measure = serving.BoardService._measure
def slowly(self, **question):
    time.sleep(0.5)
    return measure(self, **question)
serving.BoardService._measure = slowly
sys.exit(cli.main(sys.argv[1:]))
"""


def some(machine_name: str, count: int) -> list[Candidate]:
    machine, pack = hardware.find_machine(machine_name)
    default, space = default_of(POINTWISE, machine_name), all_candidates(POINTWISE, machine, pack)
    others = [each for each in space if each.identity != default.identity]
    return [default, *others[:: len(others) // count]][:count]


def test_tuning_over_rpc_writes_a_record(packs, tracker, start, where, tmp_path, capsys):
    first, second = start(), start()
    words = ["tune", workload(tmp_path, POINTWISE), "--machine", "slow-default", "--trials", 12]
    words += ["--output", tmp_path / "logs", "--rpc-tracker", tracker, "--rpc-key", where.key]
    assert cli.main(list(map(str, words))) == 0, capsys.readouterr().err

    (entry,) = log.read_log(tmp_path / "logs" / "slow-default" / "conv2d.jsonl")
    assert (entry.record.place, entry.record.board, entry.record.cache) == (
        "rpc",
        where.key,
        "warm",
    )
    assert entry.record.cpu == host.cpu_name()
    assert entry.record.trials == 12
    assert entry.record.gain > 1.5
    assert first.clients == second.clients == 1


def test_a_board_without_tvm_measures(packs, start, where, tmp_path):
    python = inference_venv.make(tmp_path)
    board = Board(
        f"127.0.0.1:{where.tracker[1]}", where.key, tmp_path,
        python, "-I", "-m", "tvmconv.commands.cli",
        runtime=runtime_alone(tmp_path / "bundle", host.architecture()),
    )  # fmt: skip
    board.wait_until_known()
    machine, _ = hardware.find_machine("host")
    with where.open(machine) as measurer:
        (measured,) = measurer.measure(POINTWISE, [default_of(POINTWISE, machine.name)])
    board.end()
    assert measured.error is None
    assert 1e-7 < measured.seconds < 1e-2


def test_bad_candidates_cost_only_themselves(packs, start, where):
    board = start()
    machine, _ = hardware.find_machine("faulty-kernels")
    good = default_of(POINTWISE, machine.name)
    bad = {
        "kernel_segfault": r"crashed the measuring process \(SIGSEGV\)",
        "kernel_hang": "took longer than 1[0-9] s",
    }
    names = [f"faulty-kernels.faulty.{name}" for name in bad]
    batch = [good, *(Candidate(name, good.decisions) for name in names), good]
    with where.open(machine) as measurer:
        (default,) = measurer.measure(POINTWISE, batch[:1])
        measured = measurer.measure(POINTWISE, batch[1:], yardstick=default)
    assert board.clients == 1  # the connection outlived them
    assert measured[-1].error is None
    for each, message in zip(measured[:-1], bad.values(), strict=True):
        assert re.fullmatch(message, each.error)


def test_a_board_that_dies_costs_no_measurement_and_is_taken_back(packs, start, where):
    lost, other = start(), start()
    machine, _ = hardware.find_machine("slow-default")
    candidates = some(machine.name, 16)
    told = []

    def done(measurement):
        told.append(measurement)
        if len(told) == 5:
            lost.end()

    with where.open(machine) as measurer:
        (default,) = measurer.measure(POINTWISE, candidates[:1])
        measured = measurer.measure(POINTWISE, candidates, done=done, yardstick=default)
        assert lost.process.poll() is not None
        assert [each.candidate for each in measured] == candidates
        assert [each.error for each in measured] == [None] * len(candidates)
        assert sorted(map(id, told)) == sorted(map(id, measured))  # each once

        back = start()
        measured = measurer.measure(POINTWISE, candidates, yardstick=default)
        assert [each.error for each in measured] == [None] * len(candidates)
    assert other.clients == back.clients == 1


def test_a_board_that_hangs_is_given_up(packs, start, where, monkeypatch):
    monkeypatch.setattr("tvmconv.measuring.places.boards._MARGIN_SECONDS", 8.0)
    stuck, _ = start(), start()
    machine, _ = hardware.find_machine("slow-default")
    candidates = some(machine.name, 6)
    with where.open(machine) as measurer:
        (default,) = measurer.measure(POINTWISE, candidates[:1])
        measurer.measure(POINTWISE, candidates[:4], yardstick=default)
        os.killpg(stuck.process.pid, signal.SIGSTOP)
        measured = measurer.measure(POINTWISE, candidates, yardstick=default)
    os.killpg(stuck.process.pid, signal.SIGCONT)
    assert [each.error for each in measured] == [None] * len(candidates)


def test_four_slow_boards_measure_more_than_one(packs, start, where):
    machine, _ = hardware.find_machine("slow-default")
    candidates = some(machine.name, 12)
    seconds = {}
    for count in (1, 4):
        for _ in range(count if count == 1 else count - 1):
            start(sys.executable, "-c", SLOW)
        with where.open(machine) as measurer:
            (default,) = measurer.measure(POINTWISE, candidates[:1])
            measurer.measure(POINTWISE, candidates[:4], yardstick=default)  # all are connected
            begin = time.monotonic()
            measurer.measure(POINTWISE, candidates, yardstick=default)
            seconds[count] = time.monotonic() - begin
    print(f"12 candidates: one slow board {seconds[1]:.1f} s, four {seconds[4]:.1f} s")
    assert seconds[1] / seconds[4] > 2


@pytest.mark.parametrize("known", [False, True])
def test_no_board_under_the_key(packs, tracker, start, known, tmp_path, capsys):
    if known:
        start(key="other-")
    words = ["tune", workload(tmp_path, POINTWISE), "--machine", "slow-default", "--trials", 2]
    words += ["--output", tmp_path / "logs", "--rpc-tracker", tracker, "--rpc-key", "nobody"]
    assert cli.main(list(map(str, words))) == 1
    message = capsys.readouterr().err
    assert "no board under the key nobody (waited 0 s)" in message
    assert f"the tracker at {tracker} knows these keys: " in message
    assert ("other-" in message) == known
    assert "tvmconv board --tracker HOST:" in message


def test_no_tracker(packs, tmp_path, capsys):
    port = free_port()
    words = ["tune", workload(tmp_path, POINTWISE), "--machine", "slow-default", "--trials", 2]
    words += ["--output", tmp_path / "logs", "--rpc-tracker", f"127.0.0.1:{port}"]
    assert cli.main(list(map(str, words))) == 1
    assert f"no RPC tracker at 127.0.0.1:{port}" in capsys.readouterr().err


def test_a_board_of_another_architecture_says_so(start, where):
    boards.require_linker()
    start()
    machine, _ = hardware.find_machine("cortex-a72")
    with (
        where.open(machine) as measurer,
        pytest.raises(TuningError, match="cortex-a72 is not this board, which lacks"),
    ):
        measurer.measure(POINTWISE, [default_of(POINTWISE, machine.name)])


def listening(process: subprocess.Popen) -> set[str]:
    """Addresses, in hexadecimal, on which the process listens."""
    inodes = set()
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link))
        inodes |= {found[1]} if found else set()
    lines = Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return {row[1].partition(":")[0] for row in rows if row[9] in inodes and row[3] == "0A"}


def test_a_board_listens_on_loopback_unless_told_otherwise_and_warns(tracker, start, tmp_path):
    assert listening(start().process) == {"0100007F"}  # 127.0.0.1
    with subprocess.Popen(
        [sys.executable, "-m", "tvmconv.commands.cli", "board", "--tracker", tracker, "--key", "open",
         "--host", "0.0.0.0", "--port", "0"],  # noqa: S104 - that is what is warned of
        stderr=subprocess.PIPE, text=True,
    ) as opened:  # fmt: skip
        first = opened.stderr.readline()
        opened.send_signal(signal.SIGINT)
        assert opened.wait(30) == 130
    assert "WARNING: TVM's RPC has no authentication" in first
    assert "ssh tunnel" in first


def test_a_port_that_is_taken_and_a_runtime_that_is_missing(tracker, capsys):
    words = ["board", "--tracker", tracker, "--key", "k"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main([*words, "--port", str(port)]) == 1
    assert f"cannot listen on 127.0.0.1:{port}: " in capsys.readouterr().err
    assert cli.main([*words, "--runtime", "nowhere.tvmconv"]) == 1
    assert "nowhere.tvmconv does not exist: give --runtime a bundle" in capsys.readouterr().err
