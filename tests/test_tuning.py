"""Tuning on this host: what is measured, what is recorded, and who survives a bad candidate."""

from __future__ import annotations

import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import third_party

from tvmconv import choice, hardware, host
from tvmconv.errors import TuningError, UnknownNameError
from tvmconv.spec import ConvSpec
from tvmconv.tuning import log, session
from tvmconv.tuning.measure import Candidate, Measurement, Measurer
from tvmconv.tuning.model import CostModel
from tvmconv.tuning.search import Budget, all_candidates, neighbours, search
from tvmconv.workloads import Layer

HERE, PACK = hardware.find_machine("host")
SPEC = ConvSpec.conv2d((1, 14, 14, 64), (1, 1, 64, 64), bias=True)
OTHER = ConvSpec.conv2d((1, 9, 9, 32), (3, 3, 32, 64), activation="relu")
DEPTHWISE = ConvSpec.depthwise_conv2d((1, 14, 14, 32), (3, 3, 32, 1))
EMPTY = ConvSpec.conv2d((0, 14, 14, 64), (1, 1, 64, 64))

only_x86 = pytest.mark.skipif(host.architecture() != "x86_64", reason="borrows x86's schedules")


@pytest.fixture(autouse=True)
def users_own(tmp_path, monkeypatch):
    """The user's directory, empty, in place of this user's real one."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture(scope="module")
def faulty_packs(tmp_path_factory):
    directory = third_party.write_pack(
        tmp_path_factory.mktemp("packs"), "faulty", third_party.FAULTY
    )
    with third_party.installed(directory):
        yield directory


def layers(*specs: ConvSpec) -> list[Layer]:
    return [Layer(f"layer{number}", spec) for number, spec in enumerate(specs)]


def default_of(spec: ConvSpec, machine_name: str) -> Candidate:
    machine, pack = hardware.find_machine(machine_name)
    schedule = hardware.schedules_for(spec, machine, pack)[0]
    return Candidate(schedule.name, schedule.default(spec, machine))


def run(machine_name: str, directory: Path, trials: int, *specs: ConvSpec) -> session.Session:
    return session.run(session.plan(layers(*specs), machine_name, trials, None, directory))


@pytest.mark.slow
@pytest.mark.parametrize("spec", [SPEC, OTHER, DEPTHWISE], ids=lambda spec: spec.key)
def test_tuning_here_writes_a_record_that_applies_or_says_why_not(tmp_path, spec):
    result = run("host", tmp_path, 6, spec)

    (outcome,) = result.outcomes
    assert not result.interrupted
    assert len(outcome.measurements) == 6
    assert [m.error for m in outcome.measurements] == [None] * 6
    chosen = choice.choose(spec, HERE, PACK, [tmp_path])
    if outcome.record is None:
        assert "nothing beats the default" in outcome.reason
        assert chosen.entry is None
    else:
        assert outcome.record.microseconds < outcome.record.default_microseconds
        assert chosen.entry.record == outcome.record


@only_x86
def test_a_default_that_can_be_beaten_gets_a_record(faulty_packs, tmp_path):
    (outcome,) = run("slow-default", tmp_path, 8, SPEC).outcomes

    machine, pack = hardware.find_machine("slow-default")
    record = outcome.record
    assert record == choice.choose(SPEC, machine, pack, [tmp_path]).entry.record
    assert record.microseconds * 1.5 < record.default_microseconds
    assert (record.key, record.machine, record.threads) == (SPEC.key, "slow-default", 1)
    assert (record.cpu, record.trials) == (host.cpu_name(), 8)


@only_x86
def test_a_default_that_is_the_best_is_left_alone(faulty_packs, tmp_path):
    (outcome,) = run("best-default", tmp_path, 8, SPEC).outcomes

    assert outcome.record is None
    assert "nothing beats the default" in outcome.reason
    assert len(outcome.measurements) == 2  # all there are
    assert not list(tmp_path.rglob("*.jsonl"))


@only_x86
@pytest.mark.slow
def test_decisions_of_an_older_record_are_tried_again(faulty_packs, tmp_path):
    machine, pack = hardware.find_machine("slow-default")
    (outcome,) = run("slow-default", tmp_path, 8, SPEC).outcomes

    (again,) = run("slow-default", tmp_path, 2, SPEC).outcomes

    assert again.measurements[1].candidate.decisions == outcome.record.decisions
    assert again.record.decisions == outcome.record.decisions
    assert choice.choose(SPEC, machine, pack, [tmp_path]).entry.record == again.record


@only_x86
@pytest.mark.slow
def test_a_stale_record_does_not_stand_in_the_way_of_tuning_again(faulty_packs, tmp_path):
    (outcome,) = run("slow-default", tmp_path, 4, SPEC).outcomes
    file = log.log_file(tmp_path, "slow-default", "conv2d")
    file.write_text(file.read_text().replace(outcome.record.schedule, "slow-default.gone"))

    (again,) = run("slow-default", tmp_path, 4, SPEC).outcomes

    assert again.record is not None
    machine, pack = hardware.find_machine("slow-default")
    assert choice.choose(SPEC, machine, pack, [tmp_path]).entry.record == again.record


FAULTS = {
    "fail": "RuntimeError: no luck today",
    "miscompute": "BuildError: .* values are wrong",
    "leave": r"crashed the measuring process \(exit 3\)",
    "abort": r"crashed the measuring process \(SIGABRT\)",
    "segfault": r"crashed the measuring process \(SIGSEGV\)",
    "hang": "took longer than 6 s",
}


@only_x86
@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_candidate_costs_itself_only(faulty_packs, fault):
    good = default_of(SPEC, "faulty")
    bad = Candidate(f"faulty.faulty.{fault}", good.decisions)
    machine, _ = hardware.find_machine("faulty")
    with Measurer(machine, timeout_seconds=6) as measurer:
        before, failed, after = (measurer.measure(SPEC, each) for each in (good, bad, good))
        mixed = measurer.interleave(SPEC, [good, bad], rounds=2)

    assert before.error is None
    assert after.error is None
    assert 0 < after.seconds < 0.1
    assert failed.seconds is None
    assert failed.candidate == bad
    for error in (failed.error, mixed):
        assert isinstance(error, str)
    assert re.search(FAULTS[fault], failed.error)


@only_x86
@pytest.mark.slow
def test_a_search_among_bad_candidates_reports_them_and_goes_on(faulty_packs, tmp_path):
    machine, pack = hardware.find_machine("faulty")
    reports = []
    model = CostModel(machine, pack)
    with Measurer(machine, timeout_seconds=6) as measurer:
        bad = [
            Candidate(schedule.name, schedule.default(SPEC, machine))
            for schedule in hardware.schedules_for(SPEC, machine, pack)[1:]
        ]
        budget = Budget(len(bad) + 1, float("inf"))
        outcome = search(SPEC, machine, pack, measurer, model, budget, reports.append, bad)

    assert [m.error is None for m in outcome.measurements] == [True] + [False] * len(bad)
    progress = reports[-1]
    assert progress.done
    assert (progress.trials, progress.failures) == (len(bad) + 1, len(bad))
    assert "crashed the measuring process" in progress.first_error
    assert outcome.record is None
    assert "no candidate but the default" in outcome.reason


def test_interleaving_times_every_candidate_in_every_round():
    default = default_of(SPEC, "host")
    schedule = hardware.find_schedule(default.schedule, PACK)
    space = hardware.space(schedule, SPEC, HERE)
    other = Candidate(default.schedule, space[-1])
    with Measurer(HERE) as measurer:
        times = measurer.interleave(SPEC, [default, other, default], rounds=5)

    assert [len(rounds) for rounds in times] == [5, 5, 5]
    first, _, third = map(statistics.median, times)
    assert 0.5 < first / third < 2  # the same kernel


def test_a_closed_measurer_leaves_no_process_and_starts_again():
    measurer = Measurer(HERE)
    assert measurer.measure(SPEC, default_of(SPEC, "host")).error is None
    process = measurer._process
    measurer.close()

    assert not process.is_alive()
    with measurer:
        assert measurer.measure(OTHER, default_of(OTHER, "host")).error is None


def test_no_more_candidates_are_measured_than_the_budget_has_trials():
    with Measurer(HERE) as measurer:
        outcome = search(SPEC, HERE, PACK, measurer, CostModel(HERE, PACK), Budget(3, float("inf")))

    assert len(outcome.measurements) == 3
    identities = {m.candidate.identity for m in outcome.measurements}
    assert len(identities) == 3
    assert outcome.measurements[0].candidate == default_of(SPEC, "host")


def test_without_a_budget_nothing_is_measured_and_that_is_said():
    with Measurer(HERE) as measurer:
        outcome = search(SPEC, HERE, PACK, measurer, CostModel(HERE, PACK), Budget(9, 0.0))

    assert (outcome.record, outcome.measurements) == (None, [])
    assert outcome.reason


@pytest.mark.slow
def test_a_session_ends_when_its_time_is_over(tmp_path):
    work = session.plan(layers(SPEC, OTHER), "host", 1000, 20 / 60, tmp_path)
    start = time.monotonic()

    result = session.run(work)

    # Beyond it: the start of a process, and on a busy machine slower comparisons than foreseen.
    assert time.monotonic() - start < 20 + 20
    first, second = result.outcomes
    assert 0 < len(first.measurements) < 1000
    assert 0 < len(second.measurements) < 1000


INTERRUPTED = """
import sys, pathlib
from tvmconv.spec import ConvSpec
from tvmconv.tuning import session
from tvmconv.workloads import Layer

def report(layer, progress):
    print(layer.name, progress.trials, flush=True)

if __name__ == "__main__":
    keys = sys.argv[2:]
    layers = [Layer(f"layer{n}", ConvSpec.from_key(key)) for n, key in enumerate(keys)]
    work = session.plan(layers, "slow-default", 8, None, pathlib.Path(sys.argv[1]))
    result = session.run(work, report)
    print("interrupted" if result.interrupted else "finished", len(result.outcomes), flush=True)
"""


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@only_x86
@pytest.mark.slow
def test_ctrl_c_keeps_what_was_written_and_leaves_no_process(faulty_packs, tmp_path):
    (tmp_path / "tune.py").write_text(INTERRUPTED)
    logs = tmp_path / "logs"
    child = subprocess.Popen(
        [sys.executable, tmp_path / "tune.py", logs, SPEC.key, OTHER.key],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(faulty_packs)},
        start_new_session=True,
    )
    while child.stdout.readline() != "layer1 2\n":
        assert child.poll() is None
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to the measuring process too
    output, _ = child.communicate(timeout=30)

    assert output.splitlines()[-1] == "interrupted 1"
    assert child.returncode == 0
    assert log.find(SPEC, "slow-default", [logs]) is not None
    assert log.find(OTHER, "slow-default", [logs]) is None
    assert not list(logs.rglob(".*"))
    for _ in range(100):
        if not alive(child.pid):
            break
        time.sleep(0.1)
    assert not alive(child.pid)


def test_a_plan_has_each_layer_once_and_none_without_output(tmp_path):
    work = session.plan(layers(SPEC, EMPTY, OTHER, SPEC), "host", 8, 2.0, tmp_path / "new" / "logs")

    assert [layer.spec for layer in work.layers] == [SPEC, OTHER]
    assert work.machine == HERE
    assert work.seconds == 120
    assert work.estimated_seconds <= 120
    assert list((tmp_path / "new" / "logs").iterdir()) == []


def test_a_plan_for_an_unknown_machine_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean x86-64-v3"):
        session.plan(layers(SPEC), "x86_64_v3", 8, None, tmp_path)


def test_a_plan_for_features_that_are_missing_names_them(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    flags = " ".join(set(hardware.find_machine("x86-64-v3")[0].features) - {"fma", "movbe"})
    cpuinfo.write_text(f"vendor_id : GenuineIntel\nflags : {flags}\n")
    monkeypatch.setattr(host, "CPUINFO", cpuinfo)

    with pytest.raises(TuningError, match=r"lacks fma, movbe\. .*--machine host"):
        session.plan(layers(SPEC), "x86-64-v3", 8, None, tmp_path)


@only_x86
def test_a_plan_for_another_architecture_is_refused(faulty_packs, tmp_path):
    with pytest.raises(TuningError, match="lacks aarch64"):
        session.plan(layers(SPEC), "board", 8, None, tmp_path)


def test_a_plan_for_a_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(TuningError, match="--output"):
        session.plan(layers(SPEC), "host", 8, None, tmp_path / "file" / "logs")


def test_neighbours_differ_in_one_decision():
    candidates = all_candidates(SPEC, HERE, PACK)
    middle = candidates[len(candidates) // 2]

    near = neighbours(middle, candidates)

    assert near
    for other in near:
        changed = set(middle.decisions.items()) ^ set(other.decisions.items())
        assert len({name for name, _ in changed}) == 1


def spearman(first, second) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


@only_x86
@pytest.mark.slow
def test_the_cost_model_learns_to_rank_candidates():
    """Times as if loads were all that counts: few for tiles that are large and square."""
    candidates = all_candidates(SPEC, HERE, PACK)
    random.Random(0).shuffle(candidates)
    times = {}
    for number, candidate in enumerate(candidates):
        pixels, channels = candidate.decisions["pixels"], candidate.decisions["channels"]
        times[candidate.identity] = 1e-5 * (1 / pixels + 8 / channels) * (1 + number * 1e-9)
    learnt, held_out = candidates[:60], candidates[60:110]
    model = CostModel(HERE, PACK)
    assert model.rank(SPEC, held_out) == held_out  # nothing known yet

    failed = Measurement(learnt[0], None, "crashed")
    measured = [Measurement(each, times[each.identity]) for each in learnt[1:]]
    model.learn(SPEC, [failed, *measured])
    ranking = model.rank(SPEC, held_out)

    assert sorted(map(id, ranking)) == sorted(map(id, held_out))
    assert spearman([times[each.identity] for each in ranking], range(len(ranking))) > 0.5
