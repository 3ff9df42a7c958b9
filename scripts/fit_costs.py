"""Fits the constants of the x86 cost functions to measured points, and prints the error before and after.

    .venv/bin/python scripts/fit_costs.py [--machine znver5]

An error is how far the estimate of a point is from its time: the root mean square of logarithms, each spec's
mean taken out, since estimates leave out what all points of a spec share. Constants are printed for a person
to judge and to write into the schedule's file; nothing is changed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import calibration
import numpy as np
from calibration import Point
from scipy.optimize import minimize

from tvmconv import hardware
from tvmconv.hardware import Machine
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import dense_space, tile_costs, winograd_space
from tvmconv.schedules.shared.dense import DenseDecisions
from tvmconv.schedules.shared.typed import read
from tvmconv.schedules.shared.winograd import WinogradDecisions
from tvmconv.schedules.x86 import conv2d_winograd

# Points slower than this many times the best say little of the choice among good ones.
GOOD = 2.0
# A spec with fewer good points has no ratios to fit.
LEAST_POINTS = 3
# Constants stay within this factor of what they are: a few points do not speak for every machine.
FREEDOM = 4.0


@dataclass(frozen=True)
class Model:
    """A cost function: its schedule, its constants, which of them to fit, and the estimate."""

    schedule: str
    constants: Any
    fitted: tuple[str, ...]
    estimate: Callable[[Any, ConvSpec, Machine, Mapping[str, int | str]], float]


MODELS = (
    Model(
        "x86.conv2d.winograd",
        conv2d_winograd.COSTS,
        ("data", "out", "l3_bytes", "memory_bytes"),
        lambda costs, spec, machine, decisions: winograd_space.cycles(
            costs, spec, machine, read(WinogradDecisions, decisions)
        ),
    ),
    Model(
        "x86.conv2d.direct",
        tile_costs.OVERHEADS,
        ("load", "step"),
        lambda overheads, spec, machine, decisions: dense_space.cycles_per_fma(
            spec, machine, read(DenseDecisions, decisions), overheads=overheads
        ),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machine", default="host")
    args = parser.parse_args()
    machine, pack = hardware.find_machine(args.machine)
    points = calibration.read(calibration.file_of(machine, pack))
    by_spec = calibration.by_spec(points, machine, pack)
    for model in MODELS:
        groups = good_points(by_spec, model.schedule)
        if not groups:
            print(f"{model.schedule}: no spec has {LEAST_POINTS} points of it")
            continue
        found = fit(model, groups, machine)
        print(
            f"{model.schedule}: {sum(map(len, groups))} points of {len(groups)} specs, "
            f"error {error(model, model.constants, groups, machine):.1%} before, "
            f"{error(model, found, groups, machine):.1%} fitted"
        )
        for name in model.fitted:
            print(f"  {name} {getattr(model.constants, name):g} -> {getattr(found, name):.3g}")


def good_points(by_spec: Mapping[str, Sequence[Point]], schedule: str) -> list[list[Point]]:
    """The points of a schedule by spec, without those far from the best."""
    groups = []
    for points in by_spec.values():
        own = [point for point in points if point.candidate.schedule == schedule]
        good = [point for point in own if point.microseconds <= GOOD * own[0].microseconds]
        if len(good) >= LEAST_POINTS:
            groups.append(good)
    return groups


def fit(model: Model, groups: Sequence[Sequence[Point]], machine: Machine) -> Any:
    """Constants of the least error, within `FREEDOM` of today's."""
    start = [getattr(model.constants, name) for name in model.fitted]

    def with_factors(logs: Sequence[float]) -> Any:
        values = (value * math.exp(log) for value, log in zip(start, logs, strict=True))
        return replace(model.constants, **dict(zip(model.fitted, values, strict=True)))

    bound = math.log(FREEDOM)
    result = minimize(
        lambda logs: error(model, with_factors(logs), groups, machine),
        np.zeros(len(start)),
        method="Nelder-Mead",
        bounds=[(-bound, bound)] * len(start),
        options={"initial_simplex": np.vstack([np.zeros(len(start)), 0.5 * np.eye(len(start))])},
    )
    return with_factors(result.x)


def error(
    model: Model, constants: Any, groups: Sequence[Sequence[Point]], machine: Machine
) -> float:
    """Root mean square of the logarithms of estimate over time, each spec's mean taken out."""
    squares: list[float] = []
    for points in groups:
        spec = ConvSpec.from_key(points[0].key)
        logs = [
            math.log(
                model.estimate(constants, spec, machine, point.candidate.decisions)
                / point.microseconds
            )
            for point in points
        ]
        mean = sum(logs) / len(logs)
        squares += [(log - mean) ** 2 for log in logs]
    return math.sqrt(sum(squares) / len(squares))


if __name__ == "__main__":
    main()
