"""Tuners that are killed or interrupted, and the same command once more."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import struct
import termios
import time

import pytest
from tuners import (
    POINTWISE,
    THREE,
    Tuner,
    journal_files,
    journal_in,
    only_x86,
    trial_lines,
    trials_in,
    tune,
    workload,
)

from tvmconv.records import log

pytest_plugins = ("tuning_fixtures",)

pytestmark = [only_x86, pytest.mark.slow]

MACHINE = ("--machine", "slow-default")


@pytest.fixture(scope="module")
def finished(packs, tmp_path_factory):
    """Two layers, tuned by one command that was killed twice; and the command."""
    directory = tmp_path_factory.mktemp("killed")
    logs, draw = directory / "logs", random.Random()
    command = (workload(directory, POINTWISE, THREE), *MACHINE, "--trials", 12)
    seen: list[str] = []
    for most in (9, 20):
        tuner = Tuner(packs, logs, *command)
        tuner.wait_for_trials(max(len(seen) + 1, draw.randint(most - 8, most)))
        time.sleep(draw.uniform(0, 0.1))
        if most == 20:
            refused = tune(packs, logs, *command)
            assert refused[0] == 1
            assert f"another tuner (process {tuner.process.pid}, since " in refused[2]
            assert "Traceback" not in refused[2]
        tuner.kill()
        assert tuner.processes() == []
        lines = trial_lines(logs)
        assert set(seen) <= set(lines)  # nothing is lost,
        assert len(lines) > len(seen)  # and it went on
        seen = lines
    code, out, err = tune(packs, logs, *command)
    assert code == 0, err
    assert set(seen) <= set(trial_lines(logs))
    return logs, command, out


def test_a_killed_command_makes_in_total_exactly_its_trials_and_none_twice(finished):
    logs, _, out = finished
    for spec in (POINTWISE, THREE):
        tried = trials_in(logs, spec)
        assert len(tried) == len(set(tried)) == 12
        assert log.find(spec, "slow-default", [logs]).record.trials == 12
    assert "tuned 2 of 2 layers; 2 beat the default" in out


def test_when_all_is_done_the_same_command_does_nothing_and_says_so(packs, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "logs")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.jsonl")}

    code, out, err = tune(packs, tmp_path / "logs", *finished[1])

    assert code == 0
    assert "all of it was done before: more --trials go on, --again starts anew" in out
    assert err.count("done earlier: recorded") == 2
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.jsonl")} == before


def test_more_trials_go_on_and_damage_costs_only_the_trials_that_are_gone(
    packs, finished, tmp_path
):
    logs = tmp_path / "logs"
    shutil.copytree(finished[0], logs)
    (file,) = [file for file in journal_files(logs) if file.stem == POINTWISE.key]
    lines = file.read_bytes().splitlines(keepends=True)
    lines[7] = b"\0" * 80 + b"\n"
    lines[-1] = lines[-1][:30]  # the conclusion, torn
    file.write_bytes(b"".join(lines))
    (whole,) = [file for file in journal_files(logs) if file.stem == THREE.key]
    kept = whole.read_bytes()

    code, out, err = tune(packs, logs, finished[1][0], *MACHINE, "--trials", 15)

    assert code == 0, err
    assert "all of it" not in out
    assert whole.read_bytes().startswith(kept)
    for spec in (POINTWISE, THREE):
        tried = trials_in(logs, spec)
        assert len(tried) == len(set(tried)) == 15


def test_again_starts_anew(packs, finished, tmp_path):
    logs = tmp_path / "logs"
    shutil.copytree(finished[0], logs)
    others = (workload(tmp_path, THREE), *MACHINE, "--trials", 3, "--again")

    code, out, err = tune(packs, logs, *others)

    assert code == 0, err
    assert "tuned 1 of 1" in out
    assert len(trials_in(logs, THREE)) == 3
    assert len(trials_in(logs, POINTWISE)) == 12  # not asked for, not forgotten


def test_a_kernel_that_hangs_dies_with_the_tuner(packs, tmp_path):
    """Nobody is left to end it, and it does not look whether anybody is."""
    tuner = Tuner(
        packs, tmp_path / "logs", workload(tmp_path, POINTWISE), "--machine", "faulty-kernels"
    )
    tuner.wait_for_trials(3)  # the default, and two that crash: the next one hangs
    time.sleep(2)
    assert len(trial_lines(tmp_path / "logs")) == 3
    tuner.kill()

    assert tuner.processes() == []


def test_a_killed_budget_of_time_has_only_the_rest_left(packs, tmp_path):
    logs, minutes = tmp_path / "logs", 1.0
    command = (workload(tmp_path, POINTWISE), *MACHINE, "--minutes", minutes)
    tuner = Tuner(packs, logs, *command)
    tuner.wait_for_trials(20)  # the first batch is over, and its time written down
    tuner.kill()
    assert tuner.processes() == []
    file = journal_in(logs).folder / "session.json"
    spent = json.loads(file.read_text())
    assert not spent["finished"]
    assert 1 < spent["seconds"] < 60 * minutes
    # As if it had been killed later, so that no machine can be so busy that the rest is as the whole.
    file.write_text(json.dumps({**spent, "seconds": 55.0}))

    begin = time.monotonic()
    code, out, err = tune(packs, logs, *command)

    assert code == 0, err
    assert time.monotonic() - begin < 30
    assert "tuned 1 of 1" in out
    tried = trials_in(logs, POINTWISE)
    assert len(tried) == len(set(tried)) >= 20
    after = json.loads(file.read_text())
    assert after["finished"]
    assert after["seconds"] > 55


def test_ctrl_c_on_a_terminal_keeps_the_trials_and_leaves_no_process(packs, tmp_path):
    logs = tmp_path / "logs"
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    tuner = Tuner(
        packs,
        logs,
        *(workload(tmp_path, POINTWISE, THREE), *MACHINE, "--trials", 20),
        terminal=slave,
    )
    os.close(slave)
    os.set_blocking(master, False)
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                got = os.read(master, 1 << 16)
            except (BlockingIOError, OSError):  # nothing yet; nobody any more
                return
            if not got:
                return
            shown.extend(got)

    def begun() -> bool:
        read()
        return any(file.stem == THREE.key for file in journal_files(logs))

    tuner.wait_until(begun)
    os.write(master, b"\x03")
    while tuner.process.poll() is None:  # it waits for a terminal that nobody reads
        read()
        time.sleep(0.02)
    out = tuner.process.stdout.read()
    read()
    os.close(master)

    assert tuner.process.returncode == 130
    assert "interrupted after 1 of 2 layers; 1 beat the default" in out
    assert "run the same command again to go on" in out
    text = shown.decode()
    assert "Traceback" not in text
    assert "GFLOP/s" in text
    assert "of 2 layers done" in text  # the live table
    assert tuner.processes() == []
    assert tuner.scratch() == []
    assert len(trials_in(logs, POINTWISE)) == 20
    assert 1 <= len(trials_in(logs, THREE)) < 20
    assert log.find(POINTWISE, "slow-default", [logs]) is not None
    assert log.find(THREE, "slow-default", [logs]) is None


def test_what_a_killed_tuner_has_left_is_removed_by_the_next(packs, tmp_path):
    logs, words = tmp_path / "logs", (workload(tmp_path, POINTWISE), *MACHINE, "--trials")
    tuner = Tuner(packs, logs, *words, 30)
    tuner.wait_for_trials(1)
    tuner.kill()
    assert tuner.processes() == []
    assert tuner.scratch() != []

    again = Tuner(packs, logs, *words, 1, "--again")

    assert again.end()[0] == 0
    assert again.scratch() == []
