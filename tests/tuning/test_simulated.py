"""Tuning without a board: lines that move, predicted records, and that measured ones win."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import signal

import pytest
from record_writers import CONV, MACHINE, PACK, record
from tuners import DEPTHWISE, POINTWISE, THREE, Tuner, plan_for, trials_in, tune

from tvmconv import hardware
from tvmconv.checking import oracle
from tvmconv.commands import cli
from tvmconv.errors import MissingToolError
from tvmconv.measuring.places import simulated
from tvmconv.measuring.process.candidate import Candidate
from tvmconv.measuring.simulate import caches, cycles, kernel
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import choice, log
from tvmconv.records.choice import default_choice
from tvmconv.tuning import opening, session
from tvmconv.tuning.conclude import Outcome

pytest_plugins = ("logs_fixtures",)

A72, ARM = hardware.find_machine("cortex-a72")
SIMULATED = {"how": "simulated", "place": "simulated", "microseconds": 1.0}
READ, WRITE = 16, 17  # UC_MEM_READ, UC_MEM_WRITE
LINE = caches.LINE_BYTES


def tools_missing() -> str:
    """What to install before anything can be simulated; empty where nothing is missing."""
    if importlib.util.find_spec("unicorn") is None:
        return "no unicorn: pip install 'tvmconv[simulate]'"
    try:
        cycles.tools()
    except MissingToolError:
        return "no llvm-mca 18 or newer: apt install llvm-19"
    return ""


needs_tools = pytest.mark.skipif(bool(tools_missing()), reason=tools_missing() or "all is here")
needs_unicorn = pytest.mark.skipif(
    importlib.util.find_spec("unicorn") is None,
    reason="no unicorn: pip install 'tvmconv[simulate]'",
)


@pytest.fixture
def run(capsys):
    """Run ``tvmconv tune``; returns (exit code, stdout, stderr)."""

    def run(*arguments):
        capsys.readouterr()
        code = cli.main(["tune", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


# Cache lines


def use(model: caches.Caches, kind: int, first: int, size: int, step: int = 16) -> None:
    """Vectors of 16 bytes one after the other, as the emulator would report them."""
    for address in range(first, first + size, step):
        model._library.on_access(
            None,
            kind,
            ctypes.c_uint64(address),
            16,
            ctypes.c_int64(0),
            ctypes.c_void_p(model.address),
        )


def moved(model, kind, first, size):
    before = model.moved
    use(model, kind, first, size)
    return tuple(now - then for now, then in zip(model.moved, before, strict=True))


def test_what_fits_a_cache_comes_once():
    model = caches.Caches(1 << 15, 1 << 20)

    assert moved(model, READ, 1 << 20, 1 << 14) == (256, 256)
    assert moved(model, READ, 1 << 20, 1 << 14) == (0, 0)


def test_what_fits_the_second_level_only_comes_from_there_each_time():
    model = caches.Caches(1 << 15, 1 << 20)
    use(model, READ, 1 << 20, 1 << 17)

    assert moved(model, READ, 1 << 20, 1 << 17) == ((1 << 17) // LINE, 0)


def test_what_fits_no_cache_comes_from_memory_each_time():
    model = caches.Caches(1 << 15, 1 << 18)
    use(model, READ, 1 << 20, 1 << 20)

    assert moved(model, READ, 1 << 20, 1 << 20) == ((1 << 20) // LINE,) * 2


def test_written_lines_go_back_too():
    model = caches.Caches(1 << 15, 1 << 20)
    use(model, WRITE, 1 << 20, 1 << 17)

    assert moved(model, WRITE, 1 << 20, 1 << 17) == (2 * (1 << 17) // LINE, 0)


def test_a_vector_that_lies_in_two_lines_needs_both():
    model = caches.Caches(1 << 15, 1 << 20)

    assert moved(model, READ, (1 << 20) + LINE - 8, 16) == (2, 2)


def test_what_was_used_before_is_not_counted():
    model = caches.Caches(1 << 15, 1 << 20)
    model.pass_over(1 << 20, 1 << 17)

    assert model.moved == (0, 0)
    assert moved(model, READ, 1 << 20, 1 << 17) == ((1 << 17) // LINE, 0)


def watched(spec):
    made = default_choice(spec, A72, ARM)
    function = made.schedule.apply(spec, A72, made.decisions)
    arguments = oracle.random_arguments(spec, seed=0)
    content = kernel.object_file(function, A72)
    counts, out = kernel.run(content, spec, function, arguments, caches.Caches.of(A72))
    oracle.assert_close(spec, oracle.conv(spec, **arguments), out)
    return counts


@needs_unicorn
def test_a_layer_that_fits_the_caches_moves_little_and_a_large_one_all_of_its_data():
    small = watched(ConvSpec.conv2d((1, 5, 5, 16), (1, 1, 16, 16))).traffic
    large = ConvSpec.depthwise_conv2d((1, 56, 56, 144), (3, 3, 144, 1))
    traffic = watched(large).traffic

    assert small.memory <= small.second_level < 4096  # the stack and the tensors' shapes
    assert large.bytes < traffic.memory < 3 * large.bytes
    assert traffic.memory < traffic.second_level


@needs_unicorn
def test_a_call_that_is_watched_for_a_while_is_counted_as_one_that_is_not(monkeypatch):
    spec = ConvSpec.conv2d((1, 28, 28, 64), (1, 1, 64, 64))
    whole = watched(spec)
    monkeypatch.setattr(caches.Watch, "blocks", whole.blocks.total() // 3)
    part = watched(spec)

    assert part.blocks == whole.blocks
    assert part.traffic.second_level == pytest.approx(whole.traffic.second_level, rel=0.25)


def test_moving_and_computing_overlap_but_for_three_tenths():
    traffic = caches.Traffic(second_level=8000.0, memory=3400.0)  # 1000 cycles each on an A72

    assert cycles.with_caches(100.0, traffic, A72) == pytest.approx(2000.0 + 30.0)
    assert cycles.with_caches(5000.0, traffic, A72) == pytest.approx(5000.0 + 600.0)
    assert cycles.with_caches(100.0, None, A72) == 100.0


# Records


def test_a_measured_record_wins_over_a_simulated_one_wherever_they_stand(tmp_path):
    near, far = tmp_path / "near", tmp_path / "far"
    log.write(near, [record(**SIMULATED)])
    log.write(far, [record()])
    found = log.find(CONV, MACHINE.name, [near, far])

    assert found is not None
    assert not found.record.simulated
    assert choice.choose(CONV, MACHINE, PACK, [near, far]).entry == found


def test_a_measured_record_with_another_epilogue_wins_over_a_simulated_one(tmp_path):
    relu = ConvSpec.conv2d((1, 14, 14, 64), (1, 1, 64, 64), activation="relu")
    log.write(tmp_path, [record(**SIMULATED), record(relu)])

    assert log.find(CONV, MACHINE.name, [tmp_path]).record.key == relu.key


def test_a_simulated_record_serves_where_there_is_no_other(tmp_path):
    log.write(tmp_path, [record(**SIMULATED)])

    assert log.find(CONV, MACHINE.name, [tmp_path]).record.simulated
    chosen = choice.choose(CONV, MACHINE, PACK, [tmp_path])
    assert chosen.source == "x86-64-v3/conv2d.jsonl:1 (simulated)"


def test_a_simulated_record_does_not_replace_a_measured_one_but_is_replaced_by_it(tmp_path):
    log.write(tmp_path, [record()])
    (file,) = log.write(tmp_path, [record(**SIMULATED)])
    assert [entry.record for entry in log.read_log(file)] == [record()]

    file.unlink()
    log.write(tmp_path, [record(**SIMULATED)])
    log.write(tmp_path, [record()])
    assert [entry.record for entry in log.read_log(file)] == [record()]


# Tuning


@needs_tools
def test_a_workload_is_tuned_without_a_board(tmp_path, run):
    arguments = [DEPTHWISE.key, "--machine", "raspberry-pi-4", "--simulate", "--trials", 6]
    code, out, _ = run(*arguments, "--output", tmp_path, "--json")
    (outcome,) = json.loads(out)

    assert code == 0
    assert (outcome["trials"], outcome["failures"], outcome["earlier"]) == (6, 0, False)
    (entry,) = log.read_log(log.log_file(tmp_path, "cortex-a72", DEPTHWISE.op)) or (None,)
    assert (entry is None) == (outcome["gain"] < 1.1)
    assert entry is None or entry.record.simulated

    code, out, _ = run(*arguments, "--output", tmp_path, "--json")
    (again,) = json.loads(out)
    assert again["earlier"]
    assert again["record"] == outcome["record"]


@needs_tools
def test_ctrl_c_ends_a_simulation_and_the_same_command_goes_on(tmp_path):
    logs = tmp_path / "logs"
    command = (POINTWISE.key, "--machine", "cortex-a72", "--simulate", "--trials", 18)
    tuner = Tuner(tmp_path, logs, *command)
    tuner.wait_for_trials(3)
    os.killpg(tuner.process.pid, signal.SIGINT)
    code, out, _ = tuner.end()
    before = trials_in(logs, POINTWISE)

    assert code == 130
    assert "run the same command again to go on" in out
    assert tuner.processes() == []
    assert 3 <= len(before) < 18

    code, _, _ = tune(tmp_path, logs, *command)
    tried = trials_in(logs, POINTWISE)
    assert code == 0
    assert tried[: len(before)] == before
    assert len(tried) == len(set(tried)) == 18


@needs_tools
def test_a_candidate_takes_as_long_whenever_it_is_asked():
    schedule = hardware.schedules_for(POINTWISE, A72, ARM)[0]
    default = Candidate(schedule.name, schedule.default(POINTWISE, A72))
    peak = 2 * 4 * A72.cpu.gigahertz * 1e9
    with simulated.Simulator(A72) as one, simulated.Simulator(A72) as other:
        (first,), (second,) = (each.measure(POINTWISE, [default]) for each in (one, other))
        assert one.interleave(POINTWISE, [default], 3) == [[[first.seconds]]]
        assert one.roof().flops_per_second == peak

    assert first == second
    assert POINTWISE.flops / peak < first.seconds < 2 * POINTWISE.flops / peak


@needs_tools
def test_what_cannot_be_run_is_a_failure_and_costs_only_itself():
    bad = Candidate("arm.conv2d.direct", {"channels": 16})
    schedule = hardware.schedules_for(POINTWISE, A72, ARM)[0]
    good = Candidate(schedule.name, schedule.default(POINTWISE, A72))
    heard = []
    with simulated.Simulator(A72) as it:
        failed, fine = it.measure(POINTWISE, [bad, good], done=heard.append)
        assert it.interleave(POINTWISE, [good, bad], 1) == failed.error

    assert failed.seconds is None
    assert failed.error
    assert fine.seconds
    assert len(heard) == 2


@needs_tools
def test_a_simulation_leaves_a_measured_record_in_its_place(tmp_path):
    work = plan_for("cortex-a72", tmp_path, POINTWISE, trials=4, place=simulated.Simulated())
    schedule = hardware.schedules_for(POINTWISE, A72, ARM)[0]
    decisions = schedule.default(POINTWISE, A72)
    measured = record(POINTWISE, machine="cortex-a72", schedule=schedule.name, decisions=decisions)
    log.write(tmp_path, [measured])
    result = session.run(work)
    (outcome,) = result.outcomes

    assert outcome.record is None
    assert "a measured record of 2026-01-31 stays" in outcome.reason
    assert log.find(POINTWISE, "cortex-a72", [tmp_path]).record == measured


@needs_tools
def test_a_simulation_that_prefers_the_default_removes_what_was_simulated_only(tmp_path):
    work = plan_for("cortex-a72", tmp_path, POINTWISE, trials=1, place=simulated.Simulated())
    for measured, stays in (("here", True), ("simulated", False)):
        old = record(POINTWISE, machine="cortex-a72", measured=measured)
        log.write(tmp_path, [old])
        state = opening.state(work, work.layers[0], opening.model(work))
        opening.keep(work, state, Outcome(POINTWISE, None, gain=1.0, reason="nothing beats it"))

        assert (log.find(POINTWISE, "cortex-a72", [tmp_path]) is not None) == stays
        log.remove(tmp_path, "cortex-a72", POINTWISE.key)


# Mistakes


def test_a_machine_that_cannot_be_simulated_is_refused_with_those_that_can(tmp_path, run):
    code, _, said = run(THREE.key, "--machine", "x86-64-v3", "--simulate", "--output", tmp_path)

    assert code == 1
    assert "x86-64-v3 (x86_64) cannot be simulated" in said
    assert "cortex-a72" in said


def test_without_llvm_mca_the_error_names_the_package(tmp_path, run, monkeypatch):
    monkeypatch.setattr(cycles.shutil, "which", lambda _name: None)
    code, _, said = run(THREE.key, "--machine", "cortex-a72", "--simulate", "--output", tmp_path)

    assert code == 1
    assert "apt install llvm-19" in said


def test_without_unicorn_the_error_names_the_package(tmp_path, run, monkeypatch):
    monkeypatch.setattr(
        simulated.importlib.util, "find_spec", lambda name: None if name == "unicorn" else name
    )
    code, _, said = run(THREE.key, "--machine", "cortex-a72", "--simulate", "--output", tmp_path)

    assert code == 1
    assert "pip install 'tvmconv[simulate]'" in said


@pytest.mark.parametrize(
    "options",
    [
        ("--export", "a.tar"),
        ("--rpc-tracker", "127.0.0.1:9190"),
        ("--threads", "2"),
        ("--cache", "cold"),
    ],
)
def test_options_that_need_a_clock_do_not_go_with_it(tmp_path, run, options):
    command = (THREE.key, "--machine", "cortex-a72", "--simulate", "--output", tmp_path, *options)
    code, _, said = run(*command)

    assert code == 2
    assert "--simulate" in said
