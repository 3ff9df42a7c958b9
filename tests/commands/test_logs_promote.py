"""`tvmconv logs promote`: one's own records into the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from records_upkeep import (
    CONV,
    DEPTHWISE,
    MACHINE,
    OTHER_MACHINE,
    ROOT,
    SMALL,
    held,
    pruned_directory,
    record,
    snapshot,
)

from tvmconv import hardware
from tvmconv.records import log

pytest_plugins = ("logs_fixtures",)


def test_promote_takes_ones_own_records_of_a_machine(tmp_path, users_own, run):
    into = tmp_path / "into"
    log.write(into, [record(SMALL, microseconds=50.0), record(CONV, microseconds=90.0)])
    log.write(users_own, [record(CONV), record(SMALL), record(CONV, OTHER_MACHINE)])
    before = snapshot(users_own)

    code, out, _ = run("promote", "--machine", MACHINE.name, "--into", into)

    assert code == 0
    assert out.splitlines()[-1] == f"{into}: 1 replaced, 1 kept"
    assert held(into) == {
        (MACHINE.name, CONV.key): record(CONV),
        (MACHINE.name, SMALL.key): record(SMALL, microseconds=50.0),
    }
    assert snapshot(users_own) == before


def test_promote_refuses_what_prune_would_take_out(tmp_path, outcome):
    source, into = tmp_path / "source", tmp_path / "into"
    reasons = pruned_directory(source)
    own = [
        key for key in reasons if (source / MACHINE.name / "conv2d.jsonl").read_text().count(key)
    ]

    changes = outcome(
        "promote", "--from", source, "--machine", MACHINE.name, "--into", into, code=1
    )

    assert sorted(changes) == sorted(
        [("added", CONV.key), ("added", DEPTHWISE.key), *(("refused", key) for key in own)]
    )
    assert len(own) == 4
    assert set(held(into)) == {(MACHINE.name, CONV.key), (MACHINE.name, DEPTHWISE.key)}


def test_promote_of_the_host_and_of_some_layers_only(tmp_path, outcome):
    source, into, host = tmp_path / "source", tmp_path / "into", hardware.detect()
    log.write(source, [record(spec, host) for spec in (CONV, SMALL, DEPTHWISE)])
    keys = tmp_path / "keys"
    keys.write_text(f"{SMALL.key}\n{DEPTHWISE.key}\n")
    command = ("promote", "--from", source, "--machine", "host", "--into", into)

    assert outcome(*command, CONV.key) == [("added", CONV.key)]
    assert sorted(outcome(*command, keys)) == [("added", SMALL.key), ("added", DEPTHWISE.key)]
    assert {key for _, key in outcome(*command)} == {CONV.key, SMALL.key, DEPTHWISE.key}


def test_promote_says_what_is_wrong(tmp_path, users_own, run):
    log.write(tmp_path / "logs", [record()])
    into = tmp_path / "into"
    near = CONV.key.replace("14x14", "14x15")

    def promote(*arguments: object, machine: str = MACHINE.name, source: Path = tmp_path / "logs"):
        code, _, err = run(
            "promote", *arguments, "--from", source, "--machine", machine, "--into", into
        )
        assert not into.exists()
        return code, err

    code, err = promote(machine="x86-64-v")
    assert code == 2
    assert "Did you mean" in err
    code, err = promote(machine=OTHER_MACHINE.name)
    assert code == 2
    assert f"has no records for {OTHER_MACHINE.name}" in err
    assert MACHINE.name in err
    code, err = promote(near)
    assert code == 2
    assert f"Did you mean {CONV.key}?" in err
    code, err = promote("mobilenet_v22")
    assert code == 2
    assert "Did you mean mobilenet_v2" in err
    code, err = promote("mobilenet_v2")
    assert code == 1
    assert "none of them for one of these" in err
    assert f"tvmconv tune WORKLOAD --machine {MACHINE.name}" in err
    code, _, err = run("promote", "--machine", MACHINE.name, "--into", into)
    assert code == 2
    assert f"no records of your own in {users_own}" in err
    assert "tvmconv tune" in err


def test_promote_goes_into_the_source_tree_by_default(tmp_path, outcome, monkeypatch):
    log.write(tmp_path / "own", [record()])
    tree = tmp_path / "tree"
    (tree / "tuning_logs").mkdir(parents=True)
    (tree / "pyproject.toml").touch()
    monkeypatch.setattr(log, "shipped_directory", lambda: tree / "tuning_logs")

    outcome("promote", "--from", tmp_path / "own", "--machine", MACHINE.name)

    assert held(tree / "tuning_logs") == held(tmp_path / "own")


def test_promote_into_an_installed_package_must_be_meant(tmp_path):
    package = tmp_path / "site-packages" / "tvmconv"
    ignore = shutil.ignore_patterns("__pycache__")
    for folder, name in (("tvmconv", "."), ("schedules", "schedules"), ("tuning_logs",) * 2):
        shutil.copytree(ROOT / folder, package / name, ignore=ignore, dirs_exist_ok=True)
    log.write(tmp_path / "own", [record()])
    before = snapshot(package)
    command = [
        sys.executable,
        "-m",
        "tvmconv.commands.cli",
        "logs",
        "promote",
        "--machine",
        MACHINE.name,
    ]
    command += ["--from", str(tmp_path / "own")]
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}

    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd="/", check=False
    )

    assert done.returncode == 2
    assert f"{package / 'tuning_logs'}, which belongs to an installed package" in done.stderr
    assert "--into" in done.stderr
    assert snapshot(package) == before
