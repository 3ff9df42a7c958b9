"""Files that several processes write: whole or not at all, and nothing is left of those that were killed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tvmconv import writing

# Opens a folder and a file that is not finished, and waits in both.
HOLDER = """
import pathlib, sys
from tvmconv import writing
folder = pathlib.Path(sys.argv[1])
with writing.scratch("work-", folder) as scratch, writing.replacing(folder / "made") as stream:
    (scratch / "inside").write_text("half done")
    stream.write(b"half")
    stream.flush()
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_what_a_live_process_works_on_stays(tmp_path, holder):
    before = sorted(path.name for path in tmp_path.iterdir())

    with writing.scratch("other-", tmp_path):
        writing.replace(tmp_path / "another", b"content")

    assert len(before) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "another"])
    holder.communicate("go\n", timeout=60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another", "made"]
    assert (tmp_path / "made").read_bytes() == b"half"


@pytest.mark.parametrize("by", ["scratch", "replace"])
def test_what_killed_processes_have_left_is_removed(tmp_path, holder, by):
    (tmp_path / "mine").mkdir()
    holder.kill()
    holder.communicate()
    assert len(list(tmp_path.iterdir())) == 3

    if by == "scratch":
        with writing.scratch("next-", tmp_path):
            pass
    else:
        writing.replace(tmp_path / "mine" / "file", b"")  # another folder: not its business
        assert len(list(tmp_path.iterdir())) == 3
        writing.replace(tmp_path / "file", b"")

    assert {path.name for path in tmp_path.iterdir()} <= {"mine", "file"}


def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path):
    file = tmp_path / "file"
    writing.replace(file, b"old")

    def fail() -> None:
        with writing.replacing(file) as stream:
            stream.write(b"new")
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fail()

    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_everybody_may_read_what_is_written_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        writing.replace(tmp_path / "file", b"content")
    finally:
        os.umask(before)

    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
