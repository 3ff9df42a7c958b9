"""The order of trials: what is proposed, how soon the best is found, and when the search ends."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest
from tuning_helpers import DEPTHWISE, POINTWISE, THREE, layers

from tvmconv import hardware, workloads
from tvmconv.spec import ConvSpec
from tvmconv.tuning import features
from tvmconv.tuning.candidate import Candidate, Measurement
from tvmconv.tuning.journal import Memory
from tvmconv.tuning.log import Record, write
from tvmconv.tuning.model import CostModel
from tvmconv.tuning.priors import suggestions
from tvmconv.tuning.search import BATCH, LayerSearch, all_candidates, defaults
from tvmconv.tuning.session import LayerState

MACHINE, PACK = hardware.find_machine("x86-64-v4")  # no code is made here: any host will do
(CONV3X3,) = (
    layer.spec
    for layer in workloads.resolve("resnet50").entries
    if layer.name == "stage1.block1.conv3x3"
)


def search_of(spec: ConvSpec, model: CostModel | None = None) -> LayerSearch:
    return LayerSearch(spec, MACHINE, PACK, model or CostModel())


def microseconds(candidate: Candidate, seed: int) -> float:
    """A smooth cost: loads per multiply-add, waste at the borders, and a taste for each other knob."""
    knobs, taste = candidate.decisions, random.Random(seed)
    pixels, vectors = knobs["pixels"], knobs["channels"] / MACHINE.lanes("float32")
    loads = (pixels + vectors) / (pixels * vectors)
    waste = -(-CONV3X3.out_width // pixels) * pixels / CONV3X3.out_width
    cost = (1 + taste.uniform(0.5, 1.5) * loads) * waste ** taste.uniform(0.3, 1)
    cost *= 1 + taste.uniform(0.02, 0.1) * abs(math.log2(knobs["unroll"]) - taste.uniform(0, 2))
    cost *= 1 + taste.uniform(0.01, 0.04) * abs(math.log2(knobs["rows"]) - taste.uniform(0, 5))
    for name in ("order", "pad"):
        likings = {value: taste.uniform(1, 1.1) for value in ("image", "rows", "none")}
        likings |= {f"{side}_outer": taste.uniform(1, 1.1) for side in ("pixels", "weights")}
        cost *= likings[knobs[name]]
    return 100 * cost


def run(search: LayerSearch, seconds, trials: int) -> None:
    """What a session does, with a cost in place of a clock."""
    while len(search.trials) < trials and search.promise():
        for candidate in search.propose(min(BATCH, trials - len(search.trials))):
            search.note(Measurement(candidate, seconds(candidate)))
        search.end_batch()
        search._model.train()


# What is proposed


def test_the_default_comes_first_then_suggestions_then_others():
    search = search_of(POINTWISE)
    space = all_candidates(POINTWISE, MACHINE, PACK)
    search.suggest([space[-1], space[7]])

    proposed = search.propose(8)

    firsts = defaults(POINTWISE, MACHINE, PACK)
    assert search.default == firsts[0]
    assert proposed[: len(firsts) + 2] == [*firsts, space[-1], space[7]]
    assert len(proposed) == 8


@pytest.mark.parametrize("count", [1, 3, BATCH])
def test_never_more_than_asked_and_never_the_same_twice_until_all_is_tried(count):
    search = search_of(DEPTHWISE)
    space = {each.identity for each in all_candidates(DEPTHWISE, MACHINE, PACK)}
    search.suggest([search.default, search.default])
    seen = []
    while batch := search.propose(count):
        assert len(batch) <= count
        assert search.promise() >= 0
        for number, candidate in enumerate(batch):
            # Some fail; costs are such that the model has something to learn.
            seconds = None if number == 1 else 1e-6 * (1 + len(repr(candidate.decisions)))
            search.note(Measurement(candidate, seconds, None if seconds else "crashed"))
        search.end_batch()
        search._model.train()
        seen += [candidate.identity for candidate in batch]

    assert len(seen) == len(set(seen))
    assert set(seen) == space
    assert search.promise() == 0.0


def test_an_earlier_sessions_trials_are_not_made_again():
    earlier, later = search_of(THREE), search_of(THREE)
    run(earlier, lambda each: 1e-6 * each.decisions["pixels"], 40)
    gone = Measurement(Candidate("x86.conv2d.gone", {"pixels": 3}), 1e-9)
    renamed = Measurement(Candidate(earlier.default.schedule, {"pixel": 3}), 1e-9)

    later.resume([gone, renamed, *earlier.trials, earlier.trials[0]])

    assert [t.candidate for t in later.trials] == [t.candidate for t in earlier.trials]
    assert later.best == earlier.best  # and not what no schedule makes any more
    made = {t.candidate.identity for t in earlier.trials}
    assert not made & {candidate.identity for candidate in later.propose(BATCH)}


def test_a_default_whose_trial_was_lost_is_measured_again():
    search = search_of(THREE)
    space = all_candidates(THREE, MACHINE, PACK)
    others = [each for each in space if each.identity != search.default.identity]
    search.resume([Measurement(each, 1e-6) for each in others[:5]])

    assert search.promise() > 0
    assert search.propose(1) == [search.default]


# How soon the best is found


@pytest.mark.parametrize("seed", range(6))
def test_it_finds_the_best_of_thousands_within_160_trials(seed):
    space = all_candidates(CONV3X3, MACHINE, PACK)
    times = {each.identity: 1e-6 * microseconds(each, seed) for each in space}
    best = min(times.values())
    search = search_of(CONV3X3, CostModel(seed))

    run(search, lambda each: times[each.identity], 160)

    assert len(times) > 3000
    assert len(search.trials) <= 160
    found = search.best.seconds / best
    assert found < 1.03
    draws = [random.Random(n).sample(sorted(times.values()), 160) for n in range(25)]
    chance = statistics.median(min(draw) for draw in draws) / best
    assert found - 1 < (chance - 1) / 2


def test_a_neighbour_of_the_best_is_tried_before_the_model_knows_anything():
    search = search_of(CONV3X3)
    for number, candidate in enumerate(search.propose()):
        search.note(Measurement(candidate, 1e-6 * (1 + number)))

    best = search.best.candidate.decisions.items()
    near = [c for c in search.propose() if len(best - c.decisions.items()) == 1]

    assert len(near) >= 4


# When it ends


def test_without_gain_the_search_ends_after_a_few_batches():
    search = search_of(CONV3X3)

    run(search, lambda _each: 1e-5, 10_000)

    assert search.promise() == 0.0
    assert 2 * BATCH <= len(search.trials) <= 6 * BATCH


def test_with_gain_it_goes_on():
    search = search_of(CONV3X3)
    times = iter(1e-5 * 0.997**number for number in range(10_000))

    run(search, lambda _each: next(times), 12 * BATCH)

    assert len(search.trials) == 12 * BATCH
    assert search.promise() > 0


def test_gain_below_the_noise_is_none():
    search = search_of(CONV3X3)
    times = iter(1e-5 * 0.9999**number for number in range(10_000))

    run(search, lambda _each: next(times), 10_000)

    assert len(search.trials) <= 6 * BATCH


def test_a_default_that_fails_ends_the_search():
    search = search_of(CONV3X3)
    search.note(Measurement(search.default, None, "crashed"))
    search.end_batch()

    assert search.default_error == "crashed"
    assert search.promise() == 0.0


# Which layer is next


def state_of(spec: ConvSpec, count: int, times: list[float], seconds: float = 1.0) -> LayerState:
    """A layer after one batch per time, each of which took ``seconds``."""
    search = search_of(spec)
    for best in times:
        for number, candidate in enumerate(search.propose()):
            search.note(Measurement(candidate, best * (1 + number)))
        search.end_batch()
    (layer,) = layers(spec, count=count)
    return LayerState(layer, search, Memory(), None, seconds * len(times), len(times))


def test_the_layer_that_saves_most_is_next():
    gaining = state_of(CONV3X3, 1, [4e-5, 2e-5, 1.5e-5])
    assert gaining.priority > state_of(CONV3X3, 1, [1.5e-5, 1.5e-5, 1.5e-5]).priority
    assert state_of(CONV3X3, 3, [4e-5, 2e-5, 1.5e-5]).priority > gaining.priority
    assert gaining.priority > state_of(CONV3X3, 1, [4e-6, 2e-6, 1.5e-6]).priority
    assert gaining.priority > state_of(CONV3X3, 1, [4e-5, 2e-5, 1.5e-5], seconds=9).priority
    assert state_of(CONV3X3, 1, []).priority == math.inf


def test_time_goes_to_the_layer_with_a_bad_default_and_a_large_count():
    """A session's choice, a batch at a time, between a layer that falls and one that cannot gain."""
    falling = state_of(CONV3X3, 10, [])
    flat = state_of(THREE, 1, [])
    times = iter(1e-4 * 0.998**number for number in range(10_000))
    for _ in range(12):
        state = max((falling, flat), key=lambda each: each.priority)
        for candidate in state.search.propose():
            state.search.note(Measurement(candidate, next(times) if state is falling else 1e-4))
        state.search.end_batch()
        state.batches += 1
        state.seconds += 1.0
        if state.search.promise() == 0.0:
            break

    assert flat.batches >= 1
    assert falling.batches >= 2 * flat.batches


# The cost model


def spearman(first, second) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def trained(seed: int = 0) -> tuple[CostModel, np.ndarray, np.ndarray]:
    """A model of 80 trials, and rows and costs of 200 others."""
    space = all_candidates(CONV3X3, MACHINE, PACK)
    random.Random(seed).shuffle(space)
    costs = np.array([microseconds(each, seed) for each in space[:280]])
    rows = features.rows(CONV3X3, MACHINE, PACK, space[:280])
    model = CostModel()
    model.add(CONV3X3.key, rows[:80], [None, *(costs[1:80] * 1e-6)])
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
        spec.key, candidate.schedule, dict(candidate.decisions), 1.0, 2.0, MACHINE.name, "a CPU", 1,
        "0.27.0", "2026-01-01", 9, "in a test",
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
