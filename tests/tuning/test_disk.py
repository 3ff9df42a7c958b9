"""Tuners without room to write: what they say, what they keep, and the same command once more."""

from __future__ import annotations

import shlex

import pytest
from tuners import (
    POINTWISE,
    Tuner,
    journal_files,
    journal_in,
    only_x86,
    trial_lines,
    trials_in,
    tune,
    workload,
)

from tvmconv.building import toolchain
from tvmconv.records import log

pytest_plugins = ("tuning_fixtures",)

pytestmark = [only_x86, pytest.mark.slow]

MACHINE = ("--machine", "slow-default")


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
    kept = trials_in(logs, POINTWISE)
    assert 5 <= len(kept) < 14
    assert log.find(POINTWISE, "slow-default", [logs]) is None

    code, out, err = tune(packs, logs, *command)  # there is room again
    assert code == 0, err
    assert "1 beat the default" in out
    assert trials_in(logs, POINTWISE)[: len(kept)] == kept
    assert len(set(trials_in(logs, POINTWISE))) == len(trials_in(logs, POINTWISE)) == 14


def test_a_linker_without_room_ends_the_session_and_is_no_candidates_fault(
    packs, tmp_path, monkeypatch
):
    """As when /tmp is full: what failed for that must be tried again, and not count as tried."""
    logs, full, linker = tmp_path / "logs", tmp_path / "full", tmp_path / "linker"
    real = shlex.join(toolchain.linker())
    linker.write_text(f'#!/bin/sh\n[ -e {full} ] && echo no space && exit 1\nexec {real} "$@"\n')
    linker.chmod(0o755)
    monkeypatch.setenv("CXX", str(linker))
    command = (workload(tmp_path, POINTWISE), *MACHINE, "--trials", 20)
    tuner = Tuner(packs, logs, *command)
    tuner.wait_for_trials(3)  # the first batch is compiled, the second one is not
    full.touch()

    code, _, err = tuner.end()

    assert code == 1
    assert err.splitlines()[-1].startswith("error: linking failed")
    assert "no space" in err
    assert "run the same command again" in err
    assert tuner.processes() == []
    kept = trials_in(logs, POINTWISE)
    assert 3 <= len(kept) < 20
    assert '"seconds": null' not in "".join(trial_lines(logs))

    full.unlink()
    code, _, err = tune(packs, logs, *command)
    assert code == 0, err
    assert trials_in(logs, POINTWISE)[: len(kept)] == kept
    assert len(trials_in(logs, POINTWISE)) == 20


def test_a_model_that_cannot_be_written_is_no_error(packs, tmp_path):
    logs = tmp_path / "logs"
    tuner = Tuner(packs, logs, workload(tmp_path, POINTWISE), *MACHINE, "--trials", 33)
    tuner.wait_for_trials(1)
    # Not a limit on files: processes that measure inherit it, and private copies of libraries are larger.
    journal_in(logs).model_file().mkdir()

    code, out, err = tuner.end()

    assert code == 0, err
    assert "1 beat the default" in out
    assert journal_in(logs).model_file().is_dir()
