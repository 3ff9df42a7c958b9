"""Tuners that are killed, interrupted or short of disk, and the same command once more."""

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
from tuning_helpers import (
    POINTWISE,
    THREE,
    Tuner,
    faulty_packs,
    journal_files,
    journal_in,
    only_x86,
    trial_lines,
    tune,
)

from tvmconv.tuning import log

pytestmark = [only_x86, pytest.mark.slow]

MACHINE = ("--machine", "slow-default")


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    with faulty_packs(tmp_path_factory.mktemp("packs")) as directory:
        yield directory


def workload(directory, *specs):
    file = directory / "keys.txt"
    file.write_text("".join(f"{spec.key}\n" for spec in specs))
    return file


def trials_in(directory, spec) -> list[str]:
    """What was tried for a layer, as text, equal for equal candidates."""
    (file,) = [file for file in journal_files(directory) if file.stem == spec.key]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    tried = [line for line in lines if "decisions" in line]
    return [f"{line['schedule']} {sorted(line['decisions'].items())}" for line in tried]


@pytest.fixture(scope="module")
def finished(packs, tmp_path_factory):
    """Two layers, tuned by one command that was killed three times; and the command."""
    directory = tmp_path_factory.mktemp("killed")
    logs, draw = directory / "logs", random.Random()
    command = (workload(directory, POINTWISE, THREE), *MACHINE, "--trials", 20)
    seen: list[str] = []
    for most in (9, 19, 34):
        tuner = Tuner(packs, logs, *command)
        tuner.wait_for_trials(max(len(seen) + 1, draw.randint(most - 8, most)))
        time.sleep(draw.uniform(0, 0.1))
        if most == 19:
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
        assert len(tried) == 20
        assert len(set(tried)) == 20
        assert log.find(spec, "slow-default", [logs]).record.trials == 20
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

    code, out, err = tune(packs, logs, finished[1][0], *MACHINE, "--trials", 23)

    assert code == 0, err
    assert "all of it" not in out
    assert whole.read_bytes().startswith(kept)
    for spec in (POINTWISE, THREE):
        tried = trials_in(logs, spec) if spec == THREE else _readable(file)
        assert len(tried) == 23
        assert len(set(tried)) == 23


def _readable(file) -> list[str]:
    tried = []
    for line in file.read_bytes().splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if "decisions" in fields:
            tried.append(f"{fields['schedule']} {sorted(fields['decisions'].items())}")
    return tried


def test_again_starts_anew(packs, finished, tmp_path):
    logs = tmp_path / "logs"
    shutil.copytree(finished[0], logs)
    others = (workload(tmp_path, THREE), *MACHINE, "--trials", 3, "--again")

    code, out, err = tune(packs, logs, *others)

    assert code == 0, err
    assert "tuned 1 of 1" in out
    assert len(trials_in(logs, THREE)) == 3
    assert len(trials_in(logs, POINTWISE)) == 20  # not asked for, not forgotten


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


def test_a_disk_that_is_full_ends_the_session_and_keeps_what_there_is(packs, tmp_path):
    logs = tmp_path / "logs"
    command = (workload(tmp_path, POINTWISE), *MACHINE, "--trials", 14)
    tuner = Tuner(packs, logs, *command)
    tuner.wait_for_trials(5)
    (file,) = journal_files(logs)
    tuner.limit_files(file.stat().st_size + 300)  # in the middle of a line, sooner or later

    code, _, err = tuner.end()

    assert code == 1
    *_, last = err.splitlines()
    assert last.startswith(f"error: cannot write {file}: ")
    assert "run the same command again" in last
    assert "Traceback" not in err
    assert tuner.processes() == []
    assert tuner.scratch() == []
    kept = _readable(file)
    assert 5 <= len(kept) < 14
    assert log.find(POINTWISE, "slow-default", [logs]) is None

    code, out, err = tune(packs, logs, *command)  # there is room again
    assert code == 0, err
    assert "1 beat the default" in out
    assert _readable(file)[: len(kept)] == kept
    assert len(set(_readable(file))) == len(_readable(file)) == 14


def test_a_model_that_does_not_fit_the_disk_is_no_error(packs, tmp_path):
    logs = tmp_path / "logs"
    tuner = Tuner(packs, logs, workload(tmp_path, POINTWISE), *MACHINE, "--trials", 33)
    tuner.wait_for_trials(1)
    tuner.limit_files(20_000)  # trials and records fit; a model is 50 KB

    code, out, err = tuner.end()

    assert code == 0, err
    assert "1 beat the default" in out
    assert not journal_in(logs).model_file().exists()


def test_ctrl_c_on_a_terminal_keeps_the_trials_and_leaves_no_process(packs, tmp_path):
    logs = tmp_path / "logs"
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    tuner = Tuner(
        packs,
        logs,
        *(workload(tmp_path, POINTWISE, THREE), *MACHINE, "--trials", 40),
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
    assert len(trials_in(logs, POINTWISE)) == 40
    assert 1 <= len(trials_in(logs, THREE)) < 40
    assert log.find(POINTWISE, "slow-default", [logs]) is not None
    assert log.find(THREE, "slow-default", [logs]) is None
