"""A batch of candidates and its results, and the commands that make them: for tests of offline tuning."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tarfile
from pathlib import Path

from tvmconv.commands import cli
from tvmconv.measuring.places import batch as batches

COUNT = 6  # candidates of a layer in a batch of these tests


def tune(folder: Path, machine: str, *options: object) -> int:
    """``tvmconv tune`` for what ``folder/keys.txt`` names, with records in ``folder/logs``."""
    words = [folder / "keys.txt", "--machine", machine, "--output", folder / "logs", *options]
    return cli.main(["tune", *map(str, words)])


def measure_command(tar: Path, *options: object) -> list[str]:
    return [sys.executable, "-m", "tvmconv.commands.cli", "measure", *map(str, (tar, *options))]


def measure(tar: Path, *options: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which knows nothing of the imaginary machines' packs."""
    return subprocess.run(
        measure_command(tar, *options), capture_output=True, text=True, timeout=200, check=False
    )


def manifest(tar: Path) -> batches.Batch:
    with tarfile.open(tar) as opened:
        return batches.parse(opened.extractfile("batch.json").read(), str(tar))


def fails(tar: Path, output: Path, *options: object) -> str:
    done = measure(tar, "--output", output, *options)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def rewritten(tar: Path, folder: Path, **changes) -> Path:
    """The same batch, said to be of something else."""
    unpacked = folder / "unpacked"
    unpacked.mkdir()
    batch = manifest(tar)
    with tarfile.open(tar) as opened:
        for name in batch.files:
            (unpacked / name).write_bytes(opened.extractfile(name).read())
    target = folder / "rewritten.tar"
    changed = dataclasses.replace(batch, **changes)
    batches.write(target, changed, [unpacked / name for name in batch.files])
    return target
