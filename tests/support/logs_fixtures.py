"""Fixtures of the tests of `tvmconv logs`."""

from __future__ import annotations

import json

import pytest

from tvmconv.commands import cli


@pytest.fixture
def run(capsys):
    """Run ``tvmconv logs``; returns (exit code, stdout, stderr)."""

    def run(*arguments: object):
        capsys.readouterr()
        code = cli.main(["logs", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def outcome(run):
    """Run ``tvmconv logs --json``; returns (action, key) of each change after checking the exit code."""

    def outcome(*arguments: object, code: int = 0):
        ended, out, _ = run(*arguments, "--json")
        assert ended == code
        return [(change["action"], change["key"]) for change in json.loads(out)["changes"]]

    return outcome


@pytest.fixture
def users_own(tmp_path, monkeypatch):
    """The user's directory, empty, in place of this user's real one."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "tvmconv" / "tuning_logs"
