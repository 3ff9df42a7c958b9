"""Instructions counted by a plugin of the emulator: ours, beside what the simulated core counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import boards
import pytest

from tvmconv import hardware
from tvmconv.checking import oracle
from tvmconv.measuring.simulate import emulator, kernel
from tvmconv.problem.spec import ConvSpec
from tvmconv.records.choice import choose

SCRIPTS = Path(__file__).parents[2] / "scripts"
LAYER = ConvSpec.conv2d((1, 14, 14, 64), (1, 1, 64, 64))
# What calling a kernel through Python takes there, 16 000 to 20 000 on 2026-11-23, and no more.
CALL = 40_000


@pytest.fixture
def scripts(monkeypatch):
    """The scripts' modules, importable as they are for each other."""
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_plugin_counts_what_the_simulated_core_counts(scripts, monkeypatch):
    import board_files
    import peers_cost

    pytest.importorskip("unicorn")
    boards.require_linker()
    boards.command("cortex-a72")  # skips where there is no emulated board
    try:
        with monkeypatch.context() as patched:
            patched.setenv("QEMU_PLUGIN", "file=none")
            board_files.emulator(board_files.cache_directory())
    except board_files.UnavailableError as error:
        pytest.skip(str(error))
    counts = peers_cost.count([LAYER], "raspberry-pi-4", [], [], winograd=True)
    counted = counts["tvmconv"][LAYER]

    machine, pack = hardware.find_machine("cortex-a72")
    choice = choose(LAYER, machine, pack, [])
    function = choice.schedule.apply(LAYER, machine, choice.decisions)
    expected, _ = kernel.simulate(function, machine, LAYER, oracle.random_arguments(LAYER, seed=0))
    assert counted.multiply_adds == expected.count(emulator.is_multiply_add)
    assert expected.instructions < counted.instructions < expected.instructions + CALL


def test_marks_that_disagree_are_no_count(scripts):
    import peers_cost

    sound = [[0, 0], [100, 10], [100_100, 30], [300_000, 70], [399_500, 90]]
    assert peers_cost.difference(sound, 1) == peers_cost.Counted(199_900 - 99_500, 40 - 20)
    assert peers_cost.difference(sound, 4) == peers_cost.Counted(25_100, 5)
    noisy = [*sound[:4], [403_000, 90]]
    assert "took 100000 instructions, then 103000" in peers_cost.difference(noisy, 1)


def test_an_emulator_without_plugins_is_named_with_its_package(scripts, monkeypatch, tmp_path):
    import board_files

    monkeypatch.setenv("QEMU_PLUGIN", "file=none")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(board_files.UnavailableError, match="apt-get install qemu-user"):
        board_files.emulator(tmp_path)
    program = tmp_path / "qemu-aarch64"  # as one that was built without
    program.write_text("#!/bin/sh\necho -cpu model\n")
    program.chmod(0o755)
    with pytest.raises(board_files.UnavailableError, match="apt-get install qemu-user"):
        board_files.emulator(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--peers", "xnnpack,onednn"), "--peers has 'onednn'; known: xnnpack, ncnn"),
        (("--peers", "ncnn", "--machine", "cortex-a55"), "the emulated board is no cortex-a55"),
    ],
)
def test_what_cannot_be_counted_is_said_at_once(words, message):
    done = subprocess.run(
        [sys.executable, SCRIPTS / "arm_cost.py", *words],
        capture_output=True, text=True, timeout=100, check=False, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode
    assert message in done.stderr
    assert "Traceback" not in done.stderr
