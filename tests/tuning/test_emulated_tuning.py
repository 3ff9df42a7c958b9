"""Tuning for an ARM board that measures over the network, or apart from it; the board is emulated.

The times that come out mean nothing; that they do, and what is written of them, is tested here.
"""

from __future__ import annotations

import json

import boards
import pytest
from rpc_boards import Board, runtime_alone

from tvmconv.commands import cli
from tvmconv.measuring.process.runner import Conditions
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import log
from tvmconv.tuning.journal import Journal
from tvmconv.tuning.plan import conditions_name

pytest_plugins = ("rpc_fixtures",)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CPU = "cortex-a72"
SPEC = ConvSpec.conv2d((1, 8, 8, 16), (1, 1, 16, 16), bias=True)


def tune(folder, *words, trials=3):
    given = [SPEC.key, "--machine", "raspberry-pi-4", "--output", folder, "--trials", trials]
    return cli.main(["tune", *map(str, (*given, *words))])


def test_a_session_over_rpc_with_the_server_on_the_board(tracker, tmp_path):
    boards.require_linker()
    command = boards.command(CPU, "tvmconv")
    runtime = runtime_alone(tmp_path / "runtime", "aarch64")
    board = Board(tracker, "emulated", tmp_path, *command, runtime=runtime)
    try:
        board.wait_until_known()
        logs = tmp_path / "logs"
        assert tune(logs, "--rpc-tracker", tracker, "--rpc-key", "emulated") == 0
        assert board.clients == 1
    finally:
        board.end()

    journal = Journal(logs, CPU, conditions_name("rpc-emulated", Conditions()))
    memory = journal.read(SPEC.key)
    assert [trial.error for trial in memory.trials] == [None] * 3
    assert all(trial.seconds > 0 for trial in memory.trials)
    assert memory.conclusion.gain is not None
    for entry in (
        log.read_log(log.log_file(logs, CPU, "conv2d")) if not memory.conclusion.reason else ()
    ):
        assert entry.record.cpu == "Cortex-A72"
        assert (entry.record.place, entry.record.board) == ("rpc", "emulated")


def test_a_round_without_a_network(tmp_path):
    boards.require_linker()
    logs, tar = tmp_path / "logs", tmp_path / "candidates.tar"
    assert tune(logs, "--export", tar, "--batch", 2) == 0
    done = boards.on_board(CPU, "tvmconv", "measure", tar)
    assert done.returncode == 0, done.stderr
    assert "measured 2 candidates, 0 failed; 1 layers compared" in done.stdout
    results = tmp_path / "candidates.results"
    assert json.loads(results.read_text().splitlines()[0])["results"]["cpu"] == "Cortex-A72"

    again = tmp_path / "next.tar"
    assert tune(logs, "--import", results, "--export", again, "--batch", 2, trials=6) == 0
    assert again.exists()
    trials = Journal(logs, CPU, conditions_name("offline", Conditions())).read(SPEC.key).trials
    assert len(trials) == 2
    assert all(trial.seconds > 0 for trial in trials)
