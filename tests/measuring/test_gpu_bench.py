"""The table of a GPU's bench, rehearsed; and what `bench` says without a GPU."""

from __future__ import annotations

import math
import types

import gpu_bundles
import gpu_rehearsal
import pytest
from gpu_rehearsal import SPEC
from gpu_stand_rehearsal import OnMain, WallClock, small

from tvmconv import hardware
from tvmconv.checking import gpu as gpu_check
from tvmconv.checking.oracle import Difference
from tvmconv.commands.cli import main
from tvmconv.commands.show.layers import show
from tvmconv.hardware import cuda_driver
from tvmconv.measuring.bench import gpu as gpu_bench
from tvmconv.problem.workloads import Layer


@pytest.mark.skipif(cuda_driver.driver() is not None, reason="this machine has a driver")
@gpu_bundles.needs_compiler
def test_bench_of_gpu_kernels_without_a_gpu_says_so(tmp_path, capsys):
    path = gpu_bundles.build(tmp_path, "toy-90", [gpu_bundles.PLAIN])

    assert main(["bench", gpu_bundles.PLAIN.key, "--bundle", str(path)]) != 0
    assert "no NVIDIA driver" in capsys.readouterr().err


@pytest.mark.parametrize("cache", ["warm", "cold"])
def test_rates_follow_from_the_median_time(cache, monkeypatch, capsys):
    # Checked elsewhere; here the clock is what cannot be had.
    monkeypatch.setattr(gpu_check, "check", lambda _kernel: Difference((), 0.0, 0.0, 0.0, 0.0, 0))
    gpu = OnMain()
    kernel = gpu_rehearsal.kernel(gpu)

    class Library:
        def __init__(self):
            self.gpu, self.variant = gpu, types.SimpleNamespace(machine="sm_90")

        def __getitem__(self, _key):
            return kernel

    machine = small(hardware.find_machine("sm_90")[0], 64 * SPEC.bytes)
    layers = [Layer("one", SPEC, 3)]
    report = gpu_bench.bench(Library(), layers, machine, 3, cache=cache, graph=WallClock)
    (row,) = report.rows
    assert 0.1 < row.fastest <= row.microseconds <= row.slowest < 1e5
    seconds = row.microseconds / 1e6
    assert row.gflops == pytest.approx(SPEC.flops / seconds / 1e9)
    assert row.gbytes == pytest.approx(SPEC.bytes / seconds / 1e9)
    assert row.percent_bandwidth == pytest.approx(100 * SPEC.bytes / seconds / 3350e9)
    assert report.total_microseconds == pytest.approx(3 * row.microseconds)
    sizes = [math.prod(shape) for shape, _ in gpu.allocated]
    assert sizes.count(math.prod(SPEC.output_shape) * 4 + 2 * gpu_check.GUARD) == (
        128 if cache == "cold" else 1
    )
    assert (2 * machine.gpu.l2_bytes in sizes) == (cache == "cold")
    show(report)
    assert f"sm_90, cuda:0: main memory, sm_90, 0 GiB, {cache} cache" in capsys.readouterr().out
