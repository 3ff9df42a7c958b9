"""GPUs over TVM's RPC on emulated cards: nvcc's kernels, TVM's own CUDA runtime, a driver that computes them.

What `test_gpu_rpc` rehearses is run here as it would be on a machine with GPUs, but for the driver and CUDA's
runtime library, which `emulated_driver` puts on the server's library path.
"""

from __future__ import annotations

import json
import sys

import inference_venv
import pytest
from rpc_boards import Board, runtime_alone
from tuners import journal_files, only_x86

from tvmconv.commands import cli
from tvmconv.hardware import host
from tvmconv.problem.spec import ConvSpec

emulated_driver = pytest.importorskip("emulated_driver", reason="no emulated driver here")
pytest_plugins = ("rpc_fixtures",)
pytestmark = [
    only_x86,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    emulated_driver.needs_emulation,
]
LAYER = ConvSpec.conv2d((1, 5, 5, 16), (1, 1, 16, 32), bias=True, activation="relu")


@pytest.fixture
def card(start):
    """Start a board with these emulated GPUs."""

    def started(gpus, **more):
        needed = emulated_driver.environment(gpus, **more)
        words = [f"{name}={value}" for name, value in needed.items()]
        return start("env", *words, sys.executable, "-m", "tvmconv.commands.cli")

    return started


@pytest.fixture
def command(monkeypatch, tracker, where, capsys):
    """Run a verb for LAYER on boards; returns exit code, stdout and stderr."""
    for name, value in emulated_driver.building().items():
        monkeypatch.setenv(name, value)

    def call(verb, *options):
        words = [verb, LAYER.key, "--machine", "sm_75", "--rpc-tracker", tracker]
        code = cli.main([*words, "--rpc-key", where.key, *map(str, options)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_tune_on_one_server_for_each_card(card, command, tmp_path):
    # The card must be of the very architecture: the first server's is its second.
    first = card("sm_80,sm_75")
    second = card("sm_75,sm_75", CUDA_VISIBLE_DEVICES="1")
    code, out, err = command("tune", "--trials", 3, "--output", tmp_path / "logs")

    assert code == 0, err
    assert "0 candidates failed" in out
    (journal,) = journal_files(tmp_path / "logs")
    trials = [line for line in journal.read_text().splitlines() if '"decisions"' in line]
    assert len(trials) == 3
    assert first.clients == second.clients == 1


def test_a_server_without_tvm_is_sent_both_runtimes(command, tracker, where, tmp_path):
    needed = emulated_driver.environment("sm_75")
    board = Board(
        tracker, where.key, tmp_path,
        "env", *(f"{name}={value}" for name, value in needed.items()),
        inference_venv.make(tmp_path), "-I", "-m", "tvmconv.commands.cli",
        runtime=runtime_alone(tmp_path / "bundle", host.architecture()),
    )  # fmt: skip
    board.wait_until_known()
    code, out, err = command("bench", "--rounds", 1, "--untuned")
    board.end()

    assert code == 0, (err, board.said.read_text())
    assert "Tesla T4 (emulated), driver " in out


def test_bench_with_a_cold_cache(card, command, tmp_path):
    card("sm_75")
    words = ["--rounds", 1, "--untuned", "--cache", "cold", "--json", tmp_path / "out.json"]
    code, out, err = command("bench", *words)

    assert code == 0, err
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["cache"] == "cold"
    assert report["device"].startswith("Tesla T4 (emulated), driver ")
    assert report["rows"][0]["microseconds"] > 0
    assert "cold cache" in out


def test_a_card_of_another_architecture_says_so(card, command):
    card("sm_80,sm_90")
    code, _, err = command("bench", "--untuned")

    assert code == 1
    assert "are measured on an NVIDIA GPU of sm_75, and this machine has cuda:0: " in err
