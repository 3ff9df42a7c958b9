"""What guides the search: the cost model, and what won on layers nearby."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from tuners import DEPTHWISE, POINTWISE

from tvmconv import hardware
from tvmconv.measuring.process.candidate import Candidate
from tvmconv.problem import workloads
from tvmconv.problem.spec import ConvSpec
from tvmconv.records.log import write
from tvmconv.records.record import Record
from tvmconv.tuning import features
from tvmconv.tuning.model import CostModel
from tvmconv.tuning.priors import suggestions
from tvmconv.tuning.search import all_candidates, defaults

MACHINE, _FULL = hardware.find_machine("x86-64-v4")  # no code is made here: any host will do
# One schedule, whose decisions the cost below knows.
PACK = replace(_FULL, schedules=tuple(each for each in _FULL.schedules if not each.winograd))
(CONV3X3,) = (
    layer.spec
    for layer in workloads.resolve("resnet50").entries
    if layer.name == "stage1.block1.conv3x3"
)

# Features


def test_candidates_that_differ_have_rows_that_differ():
    space = all_candidates(CONV3X3, MACHINE, PACK)
    rows = features.rows(CONV3X3, MACHINE, PACK, space)

    assert rows.shape == (len(space), features.COLUMNS)
    assert np.isfinite(rows).all()
    assert len(np.unique(rows, axis=0)) == len(space)


def test_layers_are_near_by_their_sizes_and_far_by_their_kinds():
    twice = ConvSpec.conv2d((1, 28, 14, 64), (1, 1, 64, 64), bias=True)
    activated = ConvSpec.conv2d((1, 14, 14, 64), (1, 1, 64, 64), bias=True, activation="relu")
    other_dtype = ConvSpec.conv2d((1, 14, 14, 64), (1, 1, 64, 64), bias=True, dtype="float64")

    def distance(spec):
        return features.distance(spec, POINTWISE)

    assert distance(POINTWISE) == 0
    assert 0 < distance(twice) < distance(activated) < distance(other_dtype)
    assert distance(other_dtype) == distance(DEPTHWISE) == float("inf")


# The cost model


def cost(candidate: Candidate) -> float:
    """A smooth one: loads, and waste at the borders."""
    pixels, channels = candidate.decisions["pixels"], candidate.decisions["channels"]
    waste = -(-CONV3X3.out_width // pixels) * pixels / CONV3X3.out_width
    return waste * (1 / pixels + 16 / channels + 0.01 * candidate.decisions["rows"])


def spearman(first, second) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def trained(seed: int = 0) -> tuple[CostModel, np.ndarray, np.ndarray]:
    """A model of 80 trials, and rows and costs of 200 others."""
    space = all_candidates(CONV3X3, MACHINE, PACK)
    random.Random(seed).shuffle(space)
    costs = np.array([cost(each) for each in space[:280]])
    rows = features.rows(CONV3X3, MACHINE, PACK, space[:280])
    model = CostModel()
    model.add(CONV3X3.key, rows[:80], [None, *(costs[1:80] * 1e-4)])
    model.train()
    return model, rows[80:], costs[80:]


def test_the_model_ranks_what_it_has_not_seen():
    model, rows, costs = trained()

    assert CostModel().scores(rows) is None
    assert spearman(-model.scores(rows), costs) > 0.7


def test_a_saved_model_scores_as_before(tmp_path):
    model, rows, _ = trained()
    model.save(tmp_path / "model")
    again = CostModel()
    again.load(tmp_path / "model")

    assert np.array_equal(again.scores(rows), model.scores(rows))
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_model_without_samples_or_a_place_is_not_saved(tmp_path):
    CostModel().save(tmp_path / "model")
    trained()[0].save(tmp_path / "nowhere" / "model")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", range(12))
def test_a_damaged_model_is_ignored(tmp_path, number):
    """A single wrong bit has crashed XGBoost, so nothing damaged may reach it."""
    model, rows, _ = trained()
    model.save(tmp_path / "model")
    content = bytearray((tmp_path / "model").read_bytes())
    at = random.Random(number).randrange(len(content))
    if number % 3 == 0:
        del content[at:]
    elif number % 3 == 1:
        content[at] ^= 1 << number % 8
    else:
        content[at : at + 100] = bytes(100)
    (tmp_path / "model").write_bytes(content)

    damaged = CostModel()
    damaged.load(tmp_path / "model")
    assert damaged.scores(rows) is None


def test_a_model_of_other_features_or_from_elsewhere_is_ignored(tmp_path):
    import xgboost

    other = CostModel()
    other.add("key", np.random.default_rng(0).random((99, 7), np.float32), list(range(1, 100)))
    other.train()
    other.save(tmp_path / "features")
    booster = xgboost.train(
        {}, xgboost.DMatrix(np.eye(features.COLUMNS), np.ones(features.COLUMNS))
    )
    booster.save_model(tmp_path / "foreign.json")
    (tmp_path / "folder").mkdir()

    for name in ("features", "foreign.json", "folder", "missing"):
        model = CostModel()
        model.load(tmp_path / name)
        assert model.scores(np.zeros((3, features.COLUMNS), np.float32)) is None


# Suggestions


def record_of(spec: ConvSpec, candidate: Candidate) -> Record:
    return Record(
        spec.key, candidate.schedule, dict(candidate.decisions), 1.0, 2.0, "measured", MACHINE.name,
        "a CPU", None, "here", None, 1, "warm", 11, 9, "0.27.0", "2026-01-01",
    )  # fmt: skip


def near(spec: ConvSpec, scale: int) -> ConvSpec:
    return ConvSpec.conv2d((1, 14 * scale, 14 * scale, 64), (1, 1, 64, 64), bias=True)


def test_suggestions_are_winners_of_the_nearest_layers_and_legal(tmp_path):
    space = all_candidates(POINTWISE, MACHINE, PACK)
    winners = {scale: space[scale * 5] for scale in (1, 2, 4, 8, 16, 32)}
    specs = {scale: near(POINTWISE, scale) for scale in winners}
    distances = [features.distance(specs[scale], POINTWISE) for scale in winners]
    assert distances == sorted(set(distances))
    assert distances[0] == 0
    illegal = Candidate(winners[1].schedule, {**winners[1].decisions, "pixels": 10_000})
    gone = Candidate("x86.conv2d.gone", winners[1].decisions)
    write(tmp_path, [record_of(specs[scale], winners[scale]) for scale in (32, 4, 1, 16)])
    found = [
        (specs[2], winners[2]),
        (specs[8], winners[8]),
        (POINTWISE, gone),
        (POINTWISE, illegal),
    ]
    found.append((DEPTHWISE, defaults(DEPTHWISE, MACHINE, PACK)[0]))

    suggested = suggestions(POINTWISE, MACHINE, PACK, [tmp_path, tmp_path / "none"], found)

    assert suggested == [winners[scale] for scale in (1, 2, 4, 8)]
    legal = {each.identity for each in space}
    assert {each.identity for each in suggested} <= legal
    assert suggestions(DEPTHWISE, MACHINE, PACK, [], found)[0].schedule != winners[1].schedule
