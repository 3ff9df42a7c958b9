"""Default decisions among the points that were measured on each CPU, and how the points are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tvmconv import hardware
from tvmconv.errors import TuningError
from tvmconv.measuring.places.here import Here
from tvmconv.measuring.process.candidate import Candidate
from tvmconv.problem.spec import ConvSpec
from tvmconv.tuning.model import CostModel
from tvmconv.tuning.search import LayerSearch

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("schedules/*/calibration/*.csv"))
# What defaults may lose to the best measured points, all together and each.
MEAN, LEAST = 0.95, 0.85
# Of the sample whose defaults may be new since, and wait for that CPU.
UNMEASURED = 0.2
SPEC = ConvSpec.conv2d((1, 6, 8, 16), (1, 1, 16, 32))


@pytest.fixture
def calibration(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import calibration

    return calibration


@pytest.fixture
def calibrate(calibration):
    import calibrate

    return calibrate


def test_there_are_points():
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_defaults_are_near_the_best_measured_points(file, calibration):
    machine, pack = hardware.find_machine(file.stem)
    found = calibration.standings(calibration.read(file), machine, pack)
    known = [each for each in found if each.default is not None]

    again = f"`scripts/calibrate.py missing` on a {machine.name} measures the others"
    assert len(found) - len(known) <= UNMEASURED * len(found), again
    behind = {each.key: round(each.share, 3) for each in known if each.share < LEAST}
    assert not behind
    assert calibration.geometric_mean(each.share for each in known) >= MEAN


def points(calibration, *microseconds):
    machine, pack = hardware.find_machine("x86-64-v3")
    default = calibration.default_of(SPEC.key, machine, pack)
    run = calibration.Run("2026-11-28", "a CPU", 99.5, "100/50/20")
    candidates = [
        default,
        Candidate(default.schedule, {**default.decisions, "pixels": 1}),
        Candidate(default.schedule, {**default.decisions, "pixels": 999}),  # not legal
        Candidate("x86.conv2d.gone", {"knob": 1}),
    ]
    made = [
        calibration.Point(run, SPEC.key, candidate, time)
        for candidate, time in zip(candidates, microseconds, strict=False)
    ]
    return made, machine, pack


def test_points_are_read_as_they_were_written(calibration, tmp_path):
    made, _, _ = points(calibration, 2.0, 1.5, 0.125)
    file = tmp_path / "calibration" / "cpu.csv"

    assert calibration.read(file) == []
    calibration.append(file, made[:2])
    calibration.append(file, made[2:])

    assert calibration.read(file) == made


def test_a_default_stands_among_legal_points_only(calibration):
    made, machine, pack = points(calibration, 2.0, 1.5, 0.1, 0.2)

    (standing,) = calibration.standings(made, machine, pack)

    assert standing.best == made[1]
    assert standing.default == made[0]
    assert standing.share == 0.75
    (standing,) = calibration.standings(made[1:], machine, pack)
    assert standing.default is None


def test_the_fastest_point_of_a_candidate_counts(calibration):
    made, machine, pack = points(calibration, 2.0, 1.5)
    quiet, busy = (replace(made[0], microseconds=time) for time in (1.0, 9.0))

    (standing,) = calibration.standings([*made, quiet, busy], machine, pack)

    assert standing.best == standing.default == quiet


def test_constants_are_found_again_from_the_times_that_they_make(calibration):
    import fit_costs

    machine, pack = hardware.find_machine("x86-64-v4")
    direct = next(model for model in fit_costs.MODELS if model.schedule == "x86.conv2d.direct")
    real = replace(direct.constants, load=0.3, step=0.25)
    (schedule,) = (each for each in pack.schedules if each.name == direct.schedule)
    spec = ConvSpec.conv2d((1, 14, 14, 64), (1, 1, 64, 64))
    made = [
        calibration.Point(
            calibration.Run("2026-11-28", "a CPU", 99.5, "100/50/20"),
            spec.key,
            Candidate(schedule.name, decisions),
            1e3 * direct.estimate(real, spec, machine, decisions),
        )
        for decisions in hardware.space(schedule, spec, machine)
        if decisions["unroll"] == 4
    ]
    groups = fit_costs.good_points(calibration.by_spec(made, machine, pack), direct.schedule)

    found = fit_costs.fit(direct, groups, machine)

    assert fit_costs.error(direct, direct.constants, groups, machine) > 0.01
    assert fit_costs.error(direct, found, groups, machine) < 1e-3
    assert found.load / found.step == pytest.approx(real.load / real.step, rel=0.05)


@pytest.mark.slow
def test_a_spec_is_measured_here(calibration, calibrate):
    machine, pack = hardware.find_machine("host")
    try:
        Here().require(machine)
    except TuningError as error:
        pytest.skip(str(error))
    run = calibration.Run("2026-11-28", "this CPU", 1.0, "1")
    with Here().open(machine) as measurer:
        search = LayerSearch(SPEC, machine, pack, CostModel())
        made = calibrate._measured(search, 5, run, measurer)
        (standing,) = calibration.standings(made, machine, pack)
        without = replace(standing, default=None)
        again = calibrate._defaults_again(without, run, measurer, machine, pack)

    assert len(made) == 5
    assert standing.default is not None
    assert [point.candidate for point in again] == [standing.default.candidate]
    assert 0 < again[0].microseconds < 1e4
