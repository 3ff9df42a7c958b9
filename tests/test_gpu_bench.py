"""The table of a GPU's bench, rehearsed; and what `bench` says without a GPU."""

from __future__ import annotations

import types

import gpu_bundles
import gpu_rehearsal
import numpy as np
import pytest
from gpu_rehearsal import SPEC, Rehearsal

from tvmconv import hardware
from tvmconv.cli import main
from tvmconv.commands.bench import show_gpu_report
from tvmconv.gpu import bench as gpu_bench
from tvmconv.gpu import check as gpu_check
from tvmconv.gpu import driver as cuda_driver
from tvmconv.oracle import Difference
from tvmconv.runtime import arrays, gpu_timing
from tvmconv.workloads import Layer


class OnGpu(gpu_rehearsal.Tensor):
    def data_ptr(self):
        return arrays.data_address(self.array)


@pytest.mark.skipif(cuda_driver.driver() is not None, reason="this machine has a driver")
@gpu_bundles.needs_compiler
def test_bench_of_gpu_kernels_without_a_gpu_says_so(tmp_path, capsys):
    path = gpu_bundles.build(tmp_path, "toy-90", [gpu_bundles.PLAIN])

    assert main(["bench", gpu_bundles.PLAIN.key, "--bundle", str(path)]) != 0
    assert "no NVIDIA driver" in capsys.readouterr().err


def test_rates_follow_from_the_median_time(monkeypatch, capsys):
    monkeypatch.setattr(Rehearsal, "upload", lambda _self, array: OnGpu(array))
    # Checked elsewhere; here the clock is what cannot be had.
    monkeypatch.setattr(gpu_check, "check", lambda _kernel: Difference((), 0.0, 0.0, 0.0, 0.0, 0))
    outputs = []

    def seconds(gpu, launch, repeats):
        launch(0)
        outputs.append(gpu.launches)
        return [3e-6, 1e-6, 2e-6][:repeats]

    monkeypatch.setattr(gpu_timing, "seconds", seconds)
    kernel = gpu_rehearsal.kernel(Rehearsal())
    library = types.SimpleNamespace(
        gpu=kernel.gpu,
        variant=types.SimpleNamespace(machine="sm_90"),
        __getitem__=None,
    )
    library = type("Library", (), {**vars(library), "__getitem__": lambda _self, _key: kernel})()
    machine, _ = hardware.find_machine("sm_90")

    report = gpu_bench.bench(library, [Layer("one", SPEC, 3)], machine, rounds=3)
    (row,) = report.rows
    assert row.microseconds == pytest.approx(2)
    assert (row.fastest, row.slowest) == (pytest.approx(1), pytest.approx(3))
    assert row.gflops == pytest.approx(SPEC.flops / 2e-6 / 1e9)
    assert row.percent_bandwidth == pytest.approx(100 * SPEC.bytes / 2e-6 / 3350e9)
    assert report.total_microseconds == pytest.approx(6)
    assert outputs[0][-1] == 0
    assert np.isfinite(row.gbytes)
    show_gpu_report(report)
    assert "sm_90, cuda:0: main memory" in capsys.readouterr().out
