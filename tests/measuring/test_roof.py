"""The measured roof of this machine, and the timer under it; on a busy machine all bounds are wide."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
import tvm
from tvm import te
from tvm.s_tir import Schedule as Loops

from tvmconv import hardware
from tvmconv.building.compile import compile_functions
from tvmconv.hardware import Machine, host
from tvmconv.lowering.interface import prim_func
from tvmconv.measuring.roof import probe as roof
from tvmconv.measuring.roof import roof_loops, timing
from tvmconv.measuring.roof.probe import Bandwidth, Probe, Roof
from tvmconv.runtime import arrays

HERE = hardware.detect()
MIB = 1 << 20


def probe_of(machine: Machine, threads: int = 1) -> Probe:
    return Probe(machine, threads, roof_loops.compiled(machine, threads))


def runnable_probe(machine_name: str) -> Probe:
    machine, _ = hardware.find_machine(machine_name)
    missing = sorted(set(machine.features) - host.cpu_features())
    if machine.architecture != host.architecture() or missing:
        pytest.skip(f"lacks {', '.join(missing) or machine.architecture}")
    return probe_of(machine)


def fastest_flops(machine_name: str) -> float:
    """The best of several probes: another process may only slow one down."""
    probe = runnable_probe(machine_name)
    return max(probe.flops_per_second() for _ in range(20))


def test_a_core_does_billions_of_operations_a_second():
    assert 1e9 < fastest_flops("host") < 1e12


def test_wider_vectors_do_more():
    """In turn, because the core's speed changes when another process has its other half."""
    wide, narrow = runnable_probe("x86-64-v4"), runnable_probe("x86-64-v3")

    ratios = [wide.flops_per_second() / narrow.flops_per_second() for _ in range(30)]

    assert statistics.median(ratios) > 1.2


def test_the_probe_reaches_the_ports_it_is_told_of():
    """2 FMAs of a full vector a cycle, at 0.8 GHz at least: a chain too short would show as half."""
    per_cycle = 2 * HERE.cpu.fma_ports * HERE.cpu.lanes("float32")

    assert fastest_flops("host") / per_cycle > 0.8e9


def test_caches_copy_faster_than_memory():
    probe = probe_of(HERE)
    rates = [
        max(probe.bandwidth(size, 5.0) for _ in range(3))
        for size in (HERE.cpu.l2_bytes // 2, 128 * MIB)
    ]

    assert all(1e8 < rate < 1e12 for rate in rates)
    assert rates[0] > 0.8 * rates[1]


@pytest.mark.slow
def test_a_whole_roof_is_ordered_by_working_set():
    roof = probe_of(HERE).roof()

    sizes = [level.working_set for level in roof.bandwidths]
    assert sizes == sorted(set(sizes))
    assert all(level.bytes_per_second > 1e8 for level in roof.bandwidths)
    assert roof.flops_per_second > 1e9
    # Two medians, seconds apart: on a busy machine only their order of magnitude holds. The ratio of
    # the best ones is tested above.
    assert 0.1 < roof.fed_flops_per_second / roof.flops_per_second < 10


def test_operands_from_the_cache_cost_little():
    probe = probe_of(HERE)
    ratios = [probe.fed_flops_per_second() / probe.flops_per_second() for _ in range(20)]

    assert 0.6 < statistics.median(ratios) < 1.25


def test_more_threads_than_the_cache_has_rows_are_measured():
    machine = hardware.detect()
    threads = (
        machine.cpu.l2_bytes // 2 // 8192 + 1
    )  # half the cache in two arrays of 4 KiB a thread
    assert probe_of(machine, threads).bandwidth(machine.cpu.l2_bytes // 2, 1) > 0


def test_two_threads_are_counted():
    probe = probe_of(HERE, threads=2)

    # The fastest of many: where another process holds a core, one thread waits for it in each run.
    for look, least in (
        (probe.flops_per_second, 1e9),
        (probe.fed_flops_per_second, 1e9),
        (lambda: probe.bandwidth(MIB), 1e8),
    ):
        assert least < max(look() for _ in range(20)) < 2e12


ROOF = Roof(1e9, 9e8, (Bandwidth(1000, 8e9), Bandwidth(100_000, 2e9)))


@pytest.mark.parametrize(
    ("working_set", "rate"), [(1, 8e9), (1000, 8e9), (1001, 2e9), (100_000, 2e9), (10**9, 2e9)]
)
def test_the_bandwidth_is_that_of_the_smallest_level_that_holds_the_set(working_set, rate):
    assert ROOF.bandwidth(working_set) == rate


@pytest.fixture(scope="module")
def millisecond_kernel():
    """A sum over 4 MiB that LLVM must not reorder: about a cycle latency per element."""
    data = te.placeholder((MIB,), "float32", name="data")
    k = te.reduce_axis((0, MIB), "k")
    out = te.compute((1,), lambda i: te.sum(data[k], axis=k), name="out")
    func = Loops(tvm.IRModule({"main": prim_func([data, out])})).mod["main"]
    module = compile_functions({"main": func}, HERE.target).mod
    buffers = [arrays.empty_aligned((size,), np.float32) for size in (MIB, 1)]
    buffers[0][...] = 1.0
    return module, tuple(arrays.array_pointer(buffer) for buffer in buffers)


def test_the_timer_agrees_with_pythons_clock(millisecond_kernel):
    module, pointers = millisecond_kernel
    main = module["main"]

    def once() -> float:
        start = time.perf_counter()
        main(*pointers)
        return time.perf_counter() - start

    by_python = min(once() for _ in range(30))
    by_timer = min(timing.seconds(module, "main", pointers, repeats=5, least_ms=5))

    assert 1e-4 < by_python < 1e-1
    assert by_python / 3 < by_timer < by_python * 3


@pytest.mark.parametrize("repeats", [1, 2, 7])
def test_there_is_a_time_for_every_repeat(millisecond_kernel, repeats):
    module, pointers = millisecond_kernel
    times = timing.seconds(module, "main", pointers, repeats, least_ms=1)

    assert len(times) == repeats
    assert min(times) > 0


def test_a_repeat_lasts_as_long_as_it_is_told(millisecond_kernel):
    module, pointers = millisecond_kernel
    start = time.perf_counter()

    timing.seconds(module, "main", pointers, repeats=3, least_ms=60)

    assert time.perf_counter() - start > 0.18


@pytest.mark.parametrize("total_ms", [0, 30])
def test_the_fastest_look_is_no_faster_than_the_work(millisecond_kernel, total_ms):
    """A million additions, each after the other: 3 or 4 cycles of latency, at no more than 8 GHz."""
    module, pointers = millisecond_kernel

    times = [timing.fastest(module, "main", pointers, total_ms) for _ in range(5)]

    assert min(times) > MIB / 8e9
    assert min(times) < 1.5 * min(timing.seconds(module, "main", pointers, 5, least_ms=5))


@pytest.fixture(scope="module")
def copy_of_a_mebibyte():
    """A function (source, target) whose arrays fit the second-level cache."""
    module = roof_loops.compiled(HERE, threads=1)
    buffers = [arrays.empty_aligned((1, 128, roof.ROW), np.float32) for _ in range(2)]
    buffers[0][...], buffers[1][...] = 1.0, 0.0
    return module, buffers, tuple(arrays.array_pointer(buffer) for buffer in buffers)


@pytest.mark.parametrize("repeats", [1, 4, 15])
def test_there_is_a_time_for_every_cold_call(copy_of_a_mebibyte, repeats):
    module, buffers, pointers = copy_of_a_mebibyte
    buffers[1][...] = 0.0

    times = timing.cold_seconds(module, "copy", pointers, repeats)

    assert len(times) == repeats
    assert min(times) > 0
    assert np.array_equal(*buffers)


def test_a_cold_call_waits_for_memory(copy_of_a_mebibyte):
    """Single calls, warm and with the target flushed: undisturbed, the latter take four times as long."""
    module, _, pointers = copy_of_a_mebibyte
    warm = min(timing.seconds(module, "copy", pointers, 50, least_ms=0))
    cold = min(timing.cold_seconds(module, "copy", pointers, 50))

    assert cold > 1.05 * warm
