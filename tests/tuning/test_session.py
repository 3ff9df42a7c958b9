"""A session of several layers: what is recorded, what is removed, and who gets the time."""

from __future__ import annotations

import dataclasses
import time

import pytest
from tuners import (
    DEPTHWISE,
    FIVE,
    POINTWISE,
    THREE,
    Notes,
    only_x86,
    plan_for,
)

from tvmconv import hardware
from tvmconv.errors import RecordError
from tvmconv.hardware import host
from tvmconv.measuring.process.candidate import Measurement
from tvmconv.measuring.process.runner import Conditions
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import choice, log, pruning
from tvmconv.records.record import Record
from tvmconv.tuning import opening, session
from tvmconv.tuning.search import BATCH, all_candidates

pytest_plugins = ("tuning_fixtures",)

TRIALS = 8


@pytest.fixture(autouse=True, scope="module")
def users_own(tmp_path_factory):
    """The user's directory, empty, in place of this user's real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


def record_for(spec: ConvSpec, machine_name: str, schedule: str | None = None) -> Record:
    """One that somebody is supposed to have made earlier."""
    machine, pack = hardware.find_machine(machine_name)
    default = choice.default_choice(spec, machine, pack)
    return Record(
        key=spec.key,
        schedule=schedule or default.schedule.name,
        decisions=default.decisions,
        microseconds=1.0,
        default_microseconds=2.0,
        machine=machine.name,
        cpu="another",
        threads=1,
        tvm="0.27.0",
        date="2026-01-01",
        trials=1,
        how="measured",
        driver=None,
        place="here",
        board=None,
        cache="warm",
        rounds=11,
    )


# A whole session, on a machine whose defaults are slow, the best, or broken


@pytest.fixture(scope="module")
def mixed(packs, tmp_path_factory):
    """A session, its notes, and its directory, which held a stale record and one of no use."""
    directory = tmp_path_factory.mktemp("logs")
    log.write(
        directory,
        [record_for(POINTWISE, "mixed", "mixed.gone"), record_for(THREE, "mixed", "mixed.best")],
    )
    notes = Notes()
    work = plan_for("mixed", directory, POINTWISE, THREE, FIVE, trials=TRIALS)
    return session.run(work, notes), notes, directory


@only_x86
@pytest.mark.slow
def test_a_default_that_can_be_beaten_gets_a_record_in_place_of_a_stale_one(mixed):
    result, _, directory = mixed
    outcome = result.outcomes[0]

    machine, pack = hardware.find_machine("mixed")
    record = outcome.record
    assert choice.choose(POINTWISE, machine, pack, [directory]).entry.record == record
    assert record.microseconds * 1.5 < record.default_microseconds
    assert outcome.gain > 1.5
    assert (record.key, record.machine, record.threads) == (POINTWISE.key, "mixed", 1)
    assert (record.cpu, record.trials) == (host.cpu_name(), TRIALS)
    assert (record.how, record.place, record.cache, record.rounds) == (
        "measured",
        "here",
        "warm",
        11,
    )
    assert [len(each) for each in record.times.chosen] == [11, 11]


@only_x86
@pytest.mark.slow
def test_a_default_that_is_the_best_is_left_alone_and_an_older_record_removed(mixed):
    result, _, directory = mixed
    outcome = result.outcomes[1]

    assert outcome.record is None
    assert "nothing beats the default" in outcome.reason
    assert outcome.default_is_best
    assert len(outcome.trials) == 2  # all there are
    assert log.find(THREE, "mixed", [directory]) is None


@only_x86
@pytest.mark.slow
@pytest.mark.parametrize("spec", [THREE, dataclasses.replace(THREE, bias=True)])
def test_a_default_that_is_the_best_comes_before_a_shipped_record(
    mixed, spec, tmp_path, monkeypatch
):
    shipped, own = tmp_path / "shipped", tmp_path / "own"
    monkeypatch.setattr(log, "shipped_directory", lambda: shipped)
    log.write(shipped, [record_for(spec, "mixed")])  # that spec's, or of another epilogue
    machine, pack = hardware.find_machine("mixed")
    work = plan_for("mixed", own, THREE, trials=TRIALS)

    state = opening.state(work, work.layers[0], opening.model(work))
    opening.keep(work, state, mixed[0].outcomes[1])

    entry = choice.choose(THREE, machine, pack, [own, shipped]).entry
    assert (entry.file.parent.parent, entry.record.gain) == (own, 1.0)
    assert entry.record.decisions == choice.default_choice(THREE, machine, pack).decisions
    assert pruning.prune(own) == []
    again = opening.state(work, work.layers[0], opening.model(work))
    assert "nothing beats the default" in opening.earlier(work, again).reason


@only_x86
@pytest.mark.slow
def test_a_default_that_fails_costs_its_layer_one_batch_and_is_reported(mixed):
    outcome = mixed[0].outcomes[2]

    assert outcome.record is None
    assert outcome.gain is None
    assert "the default itself fails" in outcome.reason
    assert "no luck today" in outcome.reason
    assert outcome.failures == len(outcome.trials) <= TRIALS


@only_x86
@pytest.mark.slow
def test_the_watcher_and_the_journal_know_every_trial(mixed):
    result, notes, _ = mixed
    keys = [state.layer.spec.key for state in result.states]

    assert notes.finished_keys == keys
    assert not result.interrupted
    assert result.peak == notes.peak
    assert result.peak > 1e9
    for state in result.states:
        trials = state.outcome.trials
        assert notes.measured_keys.count(state.layer.spec.key) == len(trials)
        assert list(result.plan.journal.read(state.layer.spec.key).trials) == list(trials)
        assert trials[0].candidate.identity == state.search.default.identity
        assert len({trial.candidate.identity for trial in trials}) == len(trials)


@only_x86
@pytest.mark.slow
def test_what_was_found_is_tried_again_early(packs, mixed, tmp_path):
    """In another directory, with the records of the first as the user's own."""
    found = mixed[0].outcomes[0].record
    log.write(log.user_directory(), [found])
    try:
        result = session.run(plan_for("mixed", tmp_path, POINTWISE, trials=2))
    finally:
        log.remove(log.user_directory(), "mixed", POINTWISE.key)

    (outcome,) = result.outcomes
    assert outcome.trials[1].candidate.decisions == found.decisions
    assert outcome.record.decisions == found.decisions


@only_x86
@pytest.mark.slow
def test_trials_of_other_conditions_do_not_count_and_the_record_names_them(packs, mixed):
    directory = mixed[2]
    before = log.find(POINTWISE, "mixed", [directory])

    cold = plan_for("mixed", directory, POINTWISE, trials=3, conditions=Conditions(1, cache="cold"))
    (outcome,) = session.run(cold).outcomes

    assert len(outcome.trials) == 3
    assert len(mixed[0].plan.journal.read(POINTWISE.key).trials) == TRIALS
    assert len(cold.journal.read(POINTWISE.key).trials) == 3
    assert [trial.error for trial in outcome.trials] == [None] * 3
    assert outcome.record.cache == "cold"
    assert before.record.cache == "warm"


@only_x86
@pytest.mark.slow
def test_a_finalist_whose_schedule_is_gone_since_does_not_spoil_its_layer(packs, tmp_path):
    """The journal is older than the schedules: its fastest trials cannot be made any more."""
    work = plan_for("best-default", tmp_path, THREE, trials=9)
    text = '{"schedule": "best-default.%s", "decisions": {%s}, "seconds": 1e-9, "error": null}\n'
    work.journal.folder.mkdir(parents=True)
    (work.journal.folder / f"{THREE.key}.jsonl").write_text(
        text % ("gone", '"pixels": 3') + text % ("faulty.best", '"renamed": 3')
    )

    (outcome,) = session.run(work).outcomes

    assert "nothing beats the default" in outcome.reason
    assert len(outcome.trials) == 2


@pytest.mark.slow
def test_a_record_of_this_machine_applies_or_it_is_said_why_there_is_none(tmp_path):
    (outcome,) = session.run(plan_for("host", tmp_path, DEPTHWISE, trials=12)).outcomes

    machine, pack = hardware.find_machine("host")
    assert [trial.error for trial in outcome.trials] == [None] * 12
    chosen = choice.choose(DEPTHWISE, machine, pack, [tmp_path])
    if outcome.record is None:
        assert "nothing beats the default" in outcome.reason
        assert chosen.entry is None
        assert not list(tmp_path.glob("*/*.jsonl"))
    else:
        assert outcome.record.microseconds < outcome.record.default_microseconds
        assert chosen.entry.record == outcome.record


@pytest.mark.slow
def test_a_search_without_gain_ends_before_its_trials_are_used_up(tmp_path):
    work = plan_for("host", tmp_path, POINTWISE, trials=2000, patience=1)
    (outcome,) = session.run(work).outcomes

    assert (
        2 * BATCH <= len(outcome.trials) < len(all_candidates(POINTWISE, work.machine, work.pack))
    )


# A budget of time


@only_x86
@pytest.mark.slow
def test_a_budget_of_time_is_kept_and_goes_where_there_is_something_to_gain(packs, tmp_path):
    minutes = 0.4
    notes = Notes()
    specs = [THREE, FIVE, POINTWISE]
    start = time.monotonic()

    result = session.run(plan_for("mixed", tmp_path, *specs, minutes=minutes), notes)

    # Everything counts: the start of processes, the searches, the comparisons at the end.
    # What is under way when time is up takes 15 s more where others want the cores.
    assert time.monotonic() - start < 1.1 * 60 * minutes + 20
    best, broken, slow = result.outcomes
    assert slow.record is not None
    assert best.default_is_best
    assert len(slow.trials) > BATCH  # it was looked at again
    assert len(broken.trials) <= BATCH  # one that always fails does not use up the others' time
    # The default of each is measured before anything else, and all are searched before one is again.
    assert notes.measured_keys[:3].count(POINTWISE.key) == 1
    assert set(notes.measured_keys[:3]) == {spec.key for spec in specs}
    firsts = [notes.measured_keys.index(spec.key) for spec in specs]
    again = [at for at, key in enumerate(notes.measured_keys) if key == POINTWISE.key][BATCH]
    assert again > max(firsts)


@pytest.mark.slow
def test_without_time_nothing_is_measured_and_that_is_said(tmp_path):
    (outcome,) = session.run(plan_for("host", tmp_path, THREE, minutes=0.001)).outcomes

    assert (outcome.record, len(outcome.trials)) == (None, 0)
    assert outcome.reason == "no time was left for it"
    assert not list(tmp_path.rglob("*.jsonl"))


@only_x86
@pytest.mark.slow
def test_a_search_that_time_ended_goes_on_without_that_limit(packs, tmp_path):
    """All the trials that were asked for have not been made, whatever the conclusion was."""
    limited = plan_for("slow-default", tmp_path, POINTWISE, trials=400, minutes=8 / 60)
    made = len(session.run(limited).outcomes[0].trials)
    assert made < 400

    more = plan_for("slow-default", tmp_path, POINTWISE, trials=made + 4)
    (outcome,) = session.run(more).outcomes

    assert not outcome.earlier
    assert len(outcome.trials) == made + 4


@pytest.mark.slow
def test_a_damaged_log_is_an_error_that_names_the_line(tmp_path):
    machine = hardware.detect().name
    (tmp_path / machine).mkdir()
    (tmp_path / machine / "conv2d.jsonl").write_text("torn\n")

    with pytest.raises(RecordError, match=r"conv2d\.jsonl, line 1"):
        session.run(plan_for("host", tmp_path, THREE, trials=1))


@pytest.mark.slow
def test_a_journal_with_an_impossible_time_gives_no_best(packs, tmp_path):
    """Earlier versions wrote down what a busy machine made of a time."""
    work = plan_for("slow-default", tmp_path, THREE, trials=3)
    default = opening.state(work, work.layers[0], opening.model(work)).search.default
    other = next(
        each
        for each in all_candidates(THREE, work.machine, work.pack)
        if each.identity != default.identity
    )
    work.journal.add(THREE.key, [Measurement(default, 1e-3), Measurement(other, 1e-9)])

    found = session.run(work)

    (state,) = found.states
    assert all(trial.seconds is None or trial.seconds > 1e-8 for trial in state.search.trials)
    assert state.outcome.gain < 1000
