"""Measured points of decisions, kept as data: schedules/<hardware>/calibration/<machine>.csv.

Times of one spec compare with each other, whenever they were taken: a later run scales its own by a point
that both measured. Points that schedules no longer allow are passed over.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from tvmconv import hardware
from tvmconv.errors import UnknownNameError
from tvmconv.hardware import HardwarePack, Machine
from tvmconv.measuring.process.candidate import Candidate
from tvmconv.problem.spec import ConvSpec
from tvmconv.records.choice import default_choice

SCHEDULES = Path(__file__).parents[1] / "schedules"


@dataclass(frozen=True)
class Run:
    """When and where points were measured, and the roofs then.

    Attributes:
        date, cpu: of the run.
        gflops: float32 operations a nanosecond, at most.
        gbytes: bytes a nanosecond of copies in the second cache, the last one and memory, joined by "/".
    """

    date: str
    cpu: str
    gflops: float
    gbytes: str


@dataclass(frozen=True)
class Point:
    """Decisions of a spec and what a call with one thread takes."""

    run: Run
    key: str
    candidate: Candidate
    microseconds: float


def file_of(machine: Machine, pack: HardwarePack) -> Path:
    """Where the points of a machine are kept."""
    return SCHEDULES / pack.name / "calibration" / f"{machine.name}.csv"


_COLUMNS = (*(f.name for f in fields(Run)), "key", "schedule", "decisions", "microseconds")


def read(path: Path) -> list[Point]:
    """Points in the order in which they were measured; none if there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [_point(row) for row in csv.DictReader(stream)]


def _point(row: Mapping[str, str]) -> Point:
    run = Run(row["date"], row["cpu"], float(row["gflops"]), row["gbytes"])
    pairs = (each.split("=") for each in row["decisions"].split())
    decisions = {name: int(value) if value.isdigit() else value for name, value in pairs}
    candidate = Candidate(row["schedule"], decisions)
    return Point(run, row["key"], candidate, float(row["microseconds"]))


def append(path: Path, points: Iterable[Point]) -> None:
    """Write points behind those that are there, with the columns' names in a new file."""
    path.parent.mkdir(exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if new:
            writer.writerow(_COLUMNS)
        for point in points:
            decisions = " ".join(
                f"{name}={value}" for name, value in point.candidate.decisions.items()
            )
            run = (getattr(point.run, field.name) for field in fields(Run))
            time = f"{point.microseconds:.3f}"
            writer.writerow((*run, point.key, point.candidate.schedule, decisions, time))


def by_spec(
    points: Iterable[Point], machine: Machine, pack: HardwarePack
) -> dict[str, list[Point]]:
    """The points that are legal today by key, the fastest of each candidate, fastest first."""
    found: dict[str, dict[object, Point]] = {}
    for point in sorted(points, key=lambda point: point.microseconds):
        if _is_legal(point, machine, pack):
            found.setdefault(point.key, {}).setdefault(point.candidate.identity, point)
    return {key: list(each.values()) for key, each in found.items()}


def _is_legal(point: Point, machine: Machine, pack: HardwarePack) -> bool:
    spec, candidate = ConvSpec.from_key(point.key), point.candidate
    schedule = next((each for each in pack.schedules if each.name == candidate.schedule), None)
    if schedule is None or not schedule.accepts(spec, machine):
        return False
    try:
        hardware.check_decisions(schedule, spec, machine, candidate.decisions)
    except (ValueError, UnknownNameError):
        return False
    return True


def default_of(key: str, machine: Machine, pack: HardwarePack) -> Candidate:
    """What a spec is computed with without a record."""
    chosen = default_choice(ConvSpec.from_key(key), machine, pack)
    return Candidate(chosen.schedule.name, chosen.decisions)


@dataclass(frozen=True)
class Standing:
    """A default among the measured points of its spec.

    Attributes:
        key: of the spec.
        best: the fastest point.
        default: the default's point, None if it was not measured.
    """

    key: str
    best: Point
    default: Point | None

    @property
    def share(self) -> float:
        """Speed of the default over the best; 1 is as fast. Only where it was measured."""
        assert self.default is not None  # noqa: S101
        return self.best.microseconds / self.default.microseconds


def standings(points: Iterable[Point], machine: Machine, pack: HardwarePack) -> list[Standing]:
    """How today's defaults stand among the points."""
    found = []
    for key, each in by_spec(points, machine, pack).items():
        identity = default_of(key, machine, pack).identity
        mine = next((point for point in each if point.candidate.identity == identity), None)
        found.append(Standing(key, each[0], mine))
    return found


def geometric_mean(ratios: Iterable[float]) -> float:
    """Of at least one ratio."""
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs))
