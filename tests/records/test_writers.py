"""Processes that write one file of records at the same time: nothing is lost, nobody waits for ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from record_writers import (
    CONV,
    PREAMBLE,
    listing,
    record,
)

from tvmconv.errors import TuningError
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import log
from tvmconv.records.record import Record, encode

WRITER = """
start()
for record in records:
    log.write(directory, [record])
"""
REMOVER = """
start()
for record in records:
    assert log.remove(directory, record.machine, record.key)
"""
PRUNER = """
from tvmconv.records import pruning
pruning.prune(directory, dry_run=True)  # loads the packs, which takes longer than all that follows
start()
for _ in records:
    pruning.prune(directory)
"""


def start(code: str, directory: Path, records: list[Record]) -> subprocess.Popen[str]:
    """Start a process of the code above, which waits until `go`."""
    handle, lines = tempfile.mkstemp(dir=directory.parent)
    with os.fdopen(handle, "w") as stream:
        stream.writelines(json.dumps(encode(each)) + "\n" for each in records)
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + code, directory, lines],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def go(processes: list[subprocess.Popen[str]]) -> None:
    """Let processes work at the same time, and wait for all."""
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=100)
        assert process.returncode == 0


def numbered(first: int, count: int, **changes: object) -> list[Record]:
    specs = [ConvSpec.conv2d((1, n, n, 8), (1, 1, 8, 8)) for n in range(first, first + count)]
    return [record(spec, **changes) for spec in specs]


def alternating(first: list[Record], second: list[Record]) -> list[Record]:
    return [each for pair in zip(first, second, strict=True) for each in pair]


def test_processes_that_write_one_file_at_once_lose_nothing(tmp_path):
    each = 25
    new = [numbered(100 * worker, each) for worker in (1, 2, 3)]
    same = [record(trials=trials) for trials in range(each)]  # every worker writes this key too
    old, slow = numbered(400, each), numbered(500, each, microseconds=99)
    (file,) = log.write(tmp_path / "logs", [*old, *slow])

    workers = [
        *(start(WRITER, tmp_path / "logs", alternating(mine, same)) for mine in new),
        start(REMOVER, tmp_path / "logs", old),
        start(PRUNER, tmp_path / "logs", old),
    ]
    go(workers)

    found = {entry.record.key: entry.record for entry in log.read_log(file)}
    expected = {each.key: each for mine in new for each in mine}
    assert found == {**expected, CONV.key: same[-1]}
    assert len(file.read_bytes().splitlines()) == len(found)
    assert listing(file.parent) == [file.name]


ENDLESS = """
for record in records:
    log.write(directory, [record])
    print(record.key, flush=True)
"""


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("seen", [1, 5, 12])
def test_a_writer_that_is_stopped_loses_nothing_and_blocks_nobody(tmp_path, signal_number, seen):
    directory = tmp_path / "logs"
    process = start(ENDLESS, directory, numbered(1, 1000))
    written = [process.stdout.readline().strip() for _ in range(seen)]
    process.send_signal(signal_number)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode != 0  # it was stopped in the middle

    (file,) = log.write(directory, [record()])

    keys = {entry.record.key for entry in log.read_log(file)}
    assert {*written, *rest.split(), CONV.key} <= keys
    assert listing(file.parent) == [file.name]


def test_a_lock_that_is_not_let_go_is_an_error_that_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "_LOCK_SECONDS", 0.1)
    holder = start("with log.locked(directory): start()", tmp_path / "logs", [])
    assert holder.stdout.readline() == "ready\n"

    with pytest.raises(TuningError, match=r"another process has held .*/logs/\.lock for 0.1 s"):
        log.write(tmp_path / "logs", [record()])

    holder.communicate("let go\n", timeout=60)
    assert log.write(tmp_path / "logs", [record()])
