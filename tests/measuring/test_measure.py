"""Compiling, checking and timing candidates in processes that a bad one may ruin."""

from __future__ import annotations

import multiprocessing
import re
import statistics
import tempfile

import pytest
from tuners import DEPTHWISE, POINTWISE, THREE, default_of, only_x86

from tvmconv import hardware
from tvmconv.measuring.places.here import Here
from tvmconv.measuring.process.candidate import Candidate, Measurement
from tvmconv.measuring.process.runner import Conditions
from tvmconv.problem.spec import ConvSpec

pytest_plugins = ("tuning_fixtures",)

HERE, PACK = hardware.find_machine("host")
TIMEOUT = 5.0  # and a hang costs it, in a batch twice


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def children() -> set[int]:
    """Processes of measurers; the test itself starts no other."""
    return {process.pid for process in multiprocessing.active_children()}


# What a bad candidate costs

WRONG = "BuildError: .* of 12544 values are wrong; the worst, at"
FAULTS = {
    "faulty": {  # where the schedule is applied
        "fail": "RuntimeError: no luck today",
        "miscompute": WRONG,
        "leave": r"crashed .*process \(exit 3\)",
        "abort": r"crashed .*process \(SIGABRT\)",
        "segfault": r"crashed .*process \(SIGSEGV\)",
        "hang": "took longer than 5 s",
    },
    "faulty-kernels": {  # where the kernel runs
        "kernel_unlinked": r"crashed .*process \(exit 127\)",
        "kernel_abort": r"crashed .*process \(SIGABRT\)",
        "kernel_segfault": r"crashed .*process \(SIGSEGV\)",
        "kernel_hang": "took longer than 5 s",
    },
}


def bad(machine_name: str, fault: str) -> Candidate:
    decisions = default_of(POINTWISE, machine_name).decisions
    return Candidate(f"{machine_name}.faulty.{fault}", decisions)


@only_x86
@pytest.mark.slow
@pytest.mark.parametrize("machine_name", FAULTS)
def test_bad_candidates_in_a_batch_cost_only_themselves(packs, machine_name):
    machine, _ = hardware.find_machine(machine_name)
    good = default_of(POINTWISE, machine_name)
    batch = [good] * 5
    for fault in FAULTS[machine_name]:
        batch += [bad(machine_name, fault), good, good]
    told = []
    with Here(timeout_seconds=TIMEOUT).open(machine) as measurer:
        measurer.start()
        measurer.roof()
        before = children()
        measured = measurer.measure(POINTWISE, batch, done=told.append)
        after = children()

        assert told == measured
    assert [each.candidate for each in measured] == batch
    for each in measured:
        fault = each.candidate.schedule.rpartition(".")[2]
        if fault in FAULTS[machine_name]:
            assert each.seconds is None
            assert re.search(FAULTS[machine_name][fault], each.error)
        else:
            assert each.error is None
            assert each.seconds > 0
    assert before - after  # somebody died
    # The same kernel before and after; medians, because a busy machine may spoil any one.
    times = [each.seconds for each in measured if each.candidate == good]
    first, last = statistics.median(times[:5]), statistics.median(times[-8:])
    assert 1 / 3 < first / last < 3
    assert not children()


@only_x86
@pytest.mark.slow
def test_seconds_are_relative_to_the_yardstick_also_in_a_replaced_process(packs):
    """A yardstick said to be ten times slower makes all seconds ten times larger."""
    machine, _ = hardware.find_machine("faulty-kernels")
    good, crash = default_of(POINTWISE, machine.name), bad(machine.name, "kernel_abort")
    with Here().open(machine) as measurer:
        (plain,) = measurer.measure(POINTWISE, [good])
        slow = Measurement(good, 10 * plain.seconds)
        *before, failed = measurer.measure(POINTWISE, [*[good] * 5, crash], yardstick=slow)
        after = measurer.measure(POINTWISE, [good] * 5, yardstick=slow)

    assert failed.seconds is None
    for measured in (before, after):
        ratio = statistics.median(each.seconds for each in measured) / plain.seconds
        assert 4 < ratio < 25


@only_x86
@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine_name", "fault"), [("faulty", "miscompute"), ("faulty-kernels", "kernel_segfault")]
)
def test_a_comparison_with_a_bad_candidate_says_why_and_the_next_one_works(
    packs, machine_name, fault
):
    machine, _ = hardware.find_machine(machine_name)
    good = default_of(POINTWISE, machine_name)
    with Here(timeout_seconds=TIMEOUT).open(machine) as measurer:
        mixed = measurer.interleave(POINTWISE, [good, bad(machine_name, fault)], rounds=2)
        sound = measurer.interleave(POINTWISE, [good, good], rounds=2)

    assert isinstance(mixed, str)
    assert re.search(FAULTS[machine_name][fault], mixed)
    assert [[len(times) for times in process] for process in sound] == [[2, 2]]


# Sound candidates


def test_comparing_times_every_candidate_in_every_round_and_process():
    default = default_of(THREE, "host")
    schedule = hardware.find_schedule(default.schedule, PACK)
    other = Candidate(default.schedule, hardware.space(schedule, THREE, HERE)[-1])
    with Here().open(HERE) as measurer:
        processes = measurer.interleave(THREE, [default, other, default], rounds=5, again=2)

    assert [[len(times) for times in process] for process in processes] == [[5, 5, 5]] * 2
    for first, _, third in processes:
        assert 1 / 3 < statistics.median(first) / statistics.median(third) < 3  # the same kernel


def test_a_closed_measurer_leaves_nothing_and_starts_again(scratch):
    measurer = Here().open(HERE)
    for spec in (POINTWISE, DEPTHWISE):
        measurer.start()
        (measured,) = measurer.measure(spec, [default_of(spec, "host")])
        assert measured.error is None
        assert 0 < measured.seconds < 0.1
        assert children()
        libraries = list(scratch.glob("tvmconv-tune-*/*.so"))
        assert len(libraries) <= 2  # the roof's, and a packing function: what was measured is gone
        measurer.close()

        assert not children()
        assert not list(scratch.iterdir())


def test_nothing_to_measure_is_no_question():
    with Here().open(HERE) as measurer:
        assert measurer.measure(POINTWISE, []) == []


def test_the_roof_is_what_this_machine_does():
    with Here().open(HERE) as measurer:
        roof = measurer.roof()

    assert 1e9 < roof.fed_flops_per_second < 2e12
    assert 0.1 < roof.fed_flops_per_second / roof.flops_per_second < 10


@pytest.mark.slow
def test_a_filter_from_memory_costs_more_than_one_from_the_cache():
    """4 MiB of filter for 8 M multiply-adds: by far the most of it is loading."""
    spec = ConvSpec.conv2d((1, 2, 2, 2048), (1, 1, 2048, 512))
    default = default_of(spec, "host")
    medians, fastest = {}, {}
    for cache in ("warm", "cold"):
        with Here().open(HERE, Conditions(1, cache)) as measurer:
            measured = measurer.measure(spec, [default] * 5)
            ((rounds,),) = measurer.interleave(spec, [default], rounds=9)
        assert [each.error for each in measured] == [None] * 5
        medians[cache] = statistics.median(each.seconds for each in measured)
        fastest[cache] = min(rounds)  # another process may only slow one down

    # Where nothing disturbs them both are three times as long.
    assert fastest["cold"] > 1.05 * fastest["warm"]
    assert medians["cold"] > 1.05 * medians["warm"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32"])
def test_every_dtype_can_be_measured_cold(dtype):
    spec = ConvSpec.conv2d((2, 7, 7, 16), (3, 3, 16, 32), bias=True, residual=True, dtype=dtype)
    with Here().open(HERE, Conditions(1, "cold")) as measurer:
        (measured,) = measurer.measure(spec, [default_of(spec, "host")])

    assert measured.error is None
    assert measured.seconds > 0


def test_a_call_of_two_threads_is_measured():
    with Here().open(HERE, Conditions(2, "warm")) as measurer:
        (measured,) = measurer.measure(THREE, [default_of(THREE, "host")])

    assert measured.error is None


# Times that no machine could have


def test_a_time_that_the_peak_does_not_allow_is_a_failure():
    """As where all looks at the yardstick are hit: a run is scaled to a twentieth of its time."""
    good = default_of(THREE, "host")
    with Here().open(HERE) as measurer:
        (plain,) = measurer.measure(THREE, [good])
        fast = Measurement(good, plain.seconds / 20)
        (impossible,) = measurer.measure(THREE, [good], yardstick=fast)

    assert plain.seconds > 0
    assert impossible.seconds is None
    assert re.search(
        r"a call seemed to take .* us, twice, and the machine's peak", impossible.error
    )
