"""Records to upkeep, and `tvmconv logs` as the tests of its verbs run it."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

from tvmconv import hardware
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import choice, log
from tvmconv.records.record import Record, encode

ROOT = Path(__file__).parents[2]
MACHINE, PACK = hardware.find_machine("x86-64-v3")
OTHER_MACHINE, _ = hardware.find_machine("x86-64-v2")
CONV = ConvSpec.conv2d((1, 14, 14, 64), (1, 1, 64, 64))
SMALL = ConvSpec.conv2d((1, 7, 7, 64), (3, 3, 64, 64))
DEPTHWISE = ConvSpec.depthwise_conv2d((1, 14, 14, 64), (3, 3, 64, 1))


def record(spec: ConvSpec = CONV, on: hardware.Machine = MACHINE, **changes: object) -> Record:
    default = choice.default_choice(spec, on, PACK)
    fields: dict[str, object] = {
        "key": spec.key,
        "schedule": default.schedule.name,
        "decisions": default.decisions,
        "microseconds": 80.0,
        "default_microseconds": 100.0,
        "machine": on.name,
        "cpu": "A CPU",
        "threads": 1,
        "tvm": metadata.version("apache-tvm"),
        "date": "2026-06-15",
        "trials": 64,
        "how": "measured",
        "driver": None,
        "place": "here",
        "board": None,
        "cache": "warm",
        "rounds": 11,
    }
    return Record(**{**fields, **changes})


def line(**changes: object) -> str:
    spec = changes.pop("spec", CONV)
    return json.dumps(encode(record(spec, **changes))) + "\n"


def held(directory: Path) -> dict[tuple[str, str], Record]:
    """All records of a directory, by folder and key."""
    return {
        (file.parent.name, entry.record.key): entry.record
        for file in directory.glob("*/*.jsonl")
        for entry in log.read_log(file)
    }


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file below a directory but locks."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def pruned_directory(directory: Path) -> dict[str, str]:
    """Fill a directory with a record of every kind; returns a part of the reason by key."""
    reasons: dict[str, str] = {}

    def bad(number: int, reason: str, **changes: object) -> Record:
        spec = ConvSpec.conv2d((1, number, number, 8), (1, 1, 8, 8))
        reasons[spec.key] = reason
        return record(spec, **changes)

    log.write(
        directory,
        [
            record(CONV),
            record(DEPTHWISE),
            record(SMALL, OTHER_MACHINE, microseconds=98.0),  # just worthwhile
            bad(1, "unknown schedule 'gone'", schedule="gone"),
            bad(2, "pixels of x86.conv2d.direct is 60", decisions={"pixels": 60}),
            bad(3, "measured with TVM 0.1", tvm="0.1"),
            bad(4, "gain 1.015, worthwhile from 1.02", microseconds=98.5),
            bad(5, "unknown machine 'abacus'", machine="abacus"),
        ],
    )
    return reasons
