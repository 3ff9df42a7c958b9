"""A record to write, processes that write it, and what lies in a folder."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

from tvmconv import hardware
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import log
from tvmconv.records.record import Record, encode

ROOT = Path(__file__).parents[2]
MACHINE, PACK = hardware.find_machine("x86-64-v3")
CONV = ConvSpec.conv2d((1, 14, 14, 64), (1, 1, 64, 64))
OTHER = ConvSpec.conv2d((1, 7, 7, 64), (3, 3, 64, 64))
DEPTHWISE = ConvSpec.depthwise_conv2d((1, 14, 14, 64), (3, 3, 64, 1))


def record(spec: ConvSpec = CONV, **changes: object) -> Record:
    schedule = hardware.schedules_for(spec, MACHINE, PACK)[0]
    fields: dict[str, object] = {
        "key": spec.key,
        "schedule": schedule.name,
        "decisions": schedule.default(spec, MACHINE),
        "microseconds": 80.5,
        "default_microseconds": 100,
        "machine": MACHINE.name,
        "cpu": "A CPU",
        "threads": 1,
        "tvm": importlib.metadata.version("apache-tvm"),
        "date": "2026-01-31",
        "trials": 64,
        "how": "measured",
        "driver": None,
        "place": "here",
        "board": None,
        "cache": "warm",
        "rounds": 11,
    }
    return Record(**{**fields, **changes})


def write_line(directory: Path, line: str, op: str = "conv2d", before: str = "") -> Path:
    file = log.log_file(directory, MACHINE.name, op)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes((before + line + "\n").encode(errors="surrogateescape"))
    return file


def altered(**changes: object) -> str:
    return json.dumps({**encode(record()), **changes})


def run(code: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, which must succeed."""
    command = [sys.executable, *options.pop("flags", ()), "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, **options)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Processes that write at the same time

PREAMBLE = """
import json, pathlib, signal, sys
from tvmconv.records import log, record
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
directory, lines = map(pathlib.Path, sys.argv[1:3])
records = [record.parse(json.loads(line)) for line in lines.read_text().splitlines()]
def start():
    print("ready", flush=True)
    sys.stdin.readline()
"""


# -I -S: without site-packages, as where the compiler's packages are not installed.
BARE = """
import sys
sys.path.insert(0, sys.argv[3])
"""
