"""Which layer of a session comes next, how much is left to do, and what its watcher shows."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tuners import POINTWISE, THREE, layers, trial

from tvmconv import hardware
from tvmconv.commands.show import watch
from tvmconv.measuring.process.candidate import Measurement
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.workloads import Layer
from tvmconv.tuning.conclude import Outcome
from tvmconv.tuning.journal import Memory
from tvmconv.tuning.model import CostModel
from tvmconv.tuning.plan import Plan
from tvmconv.tuning.progress import LayerState, Session
from tvmconv.tuning.search import BATCH, PATIENCE, LayerSearch

MACHINE, PACK = hardware.find_machine("x86-64-v4")  # no code is made here: any host will do
CONV3X3 = ConvSpec.conv2d((1, 56, 56, 64), (3, 3, 64, 64), bias=True, activation="relu")


def state_of(
    spec: ConvSpec, count: int, bests: list[float], seconds: float = 1.0, floor: float = 1e-6
) -> LayerState:
    """A layer after one batch for each of ``bests``, each of which took ``seconds``."""
    search = LayerSearch(spec, MACHINE, PACK, CostModel())
    for best in bests:
        for number, candidate in enumerate(search.propose()):
            search.note(Measurement(candidate, best * (1 + number)))
        search.end_batch()
    (layer,) = layers(spec, count=count)
    batches = len(bests)
    return LayerState(layer, search, Memory(), None, floor, seconds * batches, batches)


def test_the_layer_that_saves_most_is_next():
    gaining = state_of(CONV3X3, 1, [4e-5, 2e-5, 1.5e-5])

    assert gaining.priority > state_of(CONV3X3, 1, [1.5e-5, 1.5e-5, 1.5e-5]).priority
    assert gaining.priority > state_of(CONV3X3, 1, [4e-6, 2e-6, 1.5e-6]).priority
    assert gaining.priority > state_of(CONV3X3, 1, [4e-5, 2e-5, 1.5e-5], seconds=9).priority
    assert gaining.priority < state_of(CONV3X3, 3, [4e-5, 2e-5, 1.5e-5]).priority


def test_those_that_are_over_come_first_and_those_that_nobody_has_looked_at_by_their_floor():
    gaining = state_of(CONV3X3, 1000, [4e-5, 2e-5, 1.5e-5])
    unseen, larger = (state_of(CONV3X3, count, []) for count in (1, 2))
    slower = state_of(CONV3X3, 1, [], floor=3e-6)
    over = state_of(CONV3X3, 1, [1e-5] * (PATIENCE + 2))
    broken = state_of(CONV3X3, 1, [])
    broken.search.note(Measurement(broken.search.default, None, "crashed"))
    broken.batches = 1

    assert over.search.promise() == broken.search.promise() == 0.0
    order = [over, gaining, slower, larger, unseen]
    assert sorted(order, key=lambda state: state.priority, reverse=True) == order
    assert broken.priority == over.priority


def test_time_goes_to_the_layer_with_a_bad_default_and_a_large_count():
    """A session's choice, a batch at a time, between a layer that falls and one that cannot gain."""
    falling, flat = state_of(CONV3X3, 10, []), state_of(THREE, 1, [])
    times = iter(1e-4 * 0.998**number for number in range(10_000))
    for _ in range(12):
        state = max((falling, flat), key=lambda each: each.priority)
        if state.search.promise() == 0.0:
            break
        for candidate in state.search.propose():
            state.search.note(Measurement(candidate, next(times) if state is falling else 1e-4))
        state.search.end_batch()
        state.batches += 1
        state.seconds += 1.0

    assert falling.batches >= 2 * max(flat.batches, 1)


def looked_at(spec: ConvSpec, count: int, seconds: float, floor: float = 1e-9) -> LayerState:
    """A layer of which the default alone is measured."""
    search = LayerSearch(spec, MACHINE, PACK, CostModel())
    search.note(Measurement(search.default, seconds))
    (layer,) = layers(spec, count=count)
    return LayerState(layer, search, Memory(), None, floor)


def test_the_first_batches_go_where_the_network_s_time_is():
    heavy, often, light = (
        looked_at(POINTWISE, *each) for each in ((1, 9e-5), (4, 2e-5), (1, 1e-6))
    )

    order = [heavy, often, light]
    assert sorted(order, key=lambda state: state.priority, reverse=True) == order
    unseen = state_of(POINTWISE, 1, [])
    assert often.priority > unseen.priority  # of which no more is known than what it takes at least
    gaining = state_of(CONV3X3, 1, [4e-5, 2e-5, 1.5e-5])
    assert heavy.priority > gaining.priority > light.priority


def test_a_layer_at_the_roof_waits_for_those_that_can_gain():
    at_the_roof = looked_at(POINTWISE, 3, 3e-5, floor=3e-5)
    far_from_it = looked_at(POINTWISE, 1, 3e-5, floor=1e-5)
    by_winograd = looked_at(CONV3X3, 1, 3e-5, floor=3e-5)  # which may be above that roof

    assert far_from_it.priority > at_the_roof.priority > (0, 0.0)
    assert by_winograd.priority == pytest.approx(far_from_it.priority)


# What is left


def session_of(states: list[LayerState], trials: int | None, seconds: float | None) -> Session:
    work = Plan(
        tuple(state.layer for state in states), MACHINE, PACK, trials, seconds, Path("nowhere")
    )
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    return Session(work, states, deadline=deadline)


def test_what_is_left_is_estimated_from_the_pace_so_far():
    half = state_of(CONV3X3, 1, [1e-5, 1e-5], seconds=1.6)  # 0.1 s a trial
    session = session_of([half, state_of(THREE, 1, [])], 4 * BATCH, None)
    session.concluded(0.5)
    conclusions = 2 * session.concluding_seconds

    assert session.seconds_left == pytest.approx(0.1 * (2 + 4) * BATCH + conclusions)
    session.states[1].outcome = Outcome(THREE, None)
    assert session.seconds_left == pytest.approx(0.1 * 2 * BATCH + conclusions / 2)
    assert [outcome.spec for outcome in session.outcomes] == [THREE]
    session.states[0].outcome = Outcome(POINTWISE, None)
    assert session.seconds_left == 0


def test_a_deadline_bounds_what_is_left():
    states = [state_of(CONV3X3, 1, [])]

    assert 50 < session_of(states, None, 60.0).seconds_left <= 60
    assert 0.5 < session_of(states, 10_000, 1.0).seconds_left <= 1
    assert session_of(states, 10_000, -5.0).seconds_left == 0


# What is shown


def shown(capsys, *errors: str | None) -> list[str]:
    """What a watcher prints of trials with these errors."""
    search = LayerSearch(POINTWISE, MACHINE, PACK, CostModel())
    state = LayerState(Layer("stem", POINTWISE), search, Memory())
    watcher = watch.Plain()
    for number, error in enumerate(errors):
        search.note(trial(number, 1e-6 if error is None else None, error))
        watcher.measured(Session(None, [state]), state)
    return capsys.readouterr().err.splitlines()


def test_errors_that_differ_in_numbers_and_files_only_are_of_one_kind(capsys):
    wrong = (
        "BuildError: {} of 12544 values are wrong; the worst, at ({}, 0), is {} and should be {}"
    )
    link = "BuildError: linking failed: g++ -o /tmp/tvmconv-{}/0-{}.so /tmp/{}/lib0.o: no space"

    lines = shown(
        capsys,
        wrong.format(12544, 3, 0.5, -1.25),
        None,
        wrong.format(1, 11, -1.5e-07, 2.5),
        wrong.format(7, 12, "nan", "inf"),
        link.format("ab_c", 12, "tmpx9"),
        link.format("q1", 7, "tmp_zz"),
        "crashed the measuring process (SIGSEGV)",
        "crashed the measuring process (SIGABRT)",
        "crashed the measuring process (SIGSEGV)",
        "failed in apply() with {'pixels': 3, 'pad': 'rows'}: no luck",
        "failed in apply() with {'pixels': 3, 'pad': 'image'}: no luck",
    )

    assert [line.partition(" failed: ")[2][:40] for line in lines] == [
        "BuildError: 12544 of 12544 values are wr",
        "BuildError: linking failed: g++ -o /tmp/",
        "crashed the measuring process (SIGSEGV)",
        "crashed the measuring process (SIGABRT)",
        "failed in apply() with {'pixels': 3, 'pa",
    ]


def test_a_layer_that_got_no_time_has_a_line_without_figures(capsys):
    search = LayerSearch(POINTWISE, MACHINE, PACK, CostModel())
    state = LayerState(Layer("stem", POINTWISE), search, Memory())
    state.outcome = Outcome(POINTWISE, None, reason="no time was left for it")

    assert watch.line(Session(None, [state]), state) == "stem: no time was left for it"


def test_a_layer_that_kept_its_default_unseen_has_no_line(capsys):
    watcher, state = watch.Plain(), looked_at(POINTWISE, 1, 1e-6)
    session = Session(None, [state])
    state.outcome = Outcome(POINTWISE, None, state.search.trials, reason="no time was left")

    assert state.outcome.untried
    watcher.finished(session, state)
    assert capsys.readouterr().err == ""
    failed = [trial(1, None, "crashed")]
    assert not Outcome(POINTWISE, None, failed, reason="the default itself fails").untried


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89.4, "89 s"), (90, "1.5 min"), (5400, "1.5 h")]
)
def test_times_are_for_people(seconds, text):
    assert watch.left(seconds) == text
