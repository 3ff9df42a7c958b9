"""``tvmconv bench`` on this CPU, with warm and with cold caches."""

from __future__ import annotations

import json

import pytest
from tuners import only_x86

from tvmconv import hardware
from tvmconv.building import builder
from tvmconv.commands import cli
from tvmconv.commands.show import layers
from tvmconv.hardware import cuda_driver
from tvmconv.measuring.bench import bench
from tvmconv.measuring.bench.rows import Compiled, CpuReport, cpu_row
from tvmconv.measuring.roof import timing
from tvmconv.measuring.roof.probe import Bandwidth, Probe, Roof
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.workloads import Layer
from tvmconv.runtime import load

SPEC = ConvSpec.conv2d((1, 2, 2, 1024), (1, 1, 1024, 256), activation="relu")


@only_x86
@pytest.mark.slow
@pytest.mark.parametrize("cache", ["warm", "cold"])
def test_bench_says_in_which_state_the_caches_were(cache, tmp_path, capsys, monkeypatch):
    flushed = []
    cold_seconds = timing.cold_seconds
    monkeypatch.setattr(
        timing, "cold_seconds", lambda *called: flushed.append(called[1]) or cold_seconds(*called)
    )
    words = ["bench", SPEC.key, "--untuned", "--rounds", "2", "--cache", cache]
    assert cli.main([*words, "--json", str(tmp_path / "out.json")]) == 0

    report = json.loads((tmp_path / "out.json").read_text())
    assert report["cache"] == cache
    assert flushed == ([SPEC.key] * 2 if cache == "cold" else [])
    (row,) = report["rows"]
    assert 0 < row["fastest"] <= row["microseconds"] <= row["slowest"]
    rate = SPEC.flops / row["microseconds"] / 1e3
    assert row["gflops"] == pytest.approx(rate)
    assert f"threads: 1, {cache} cache" in capsys.readouterr().out


@only_x86
@pytest.mark.slow
def test_no_share_of_a_roof_is_above_what_can_be(tmp_path):
    """Winograd's algorithm does a quarter of the sum's multiply-adds, and bytes have faster ones."""
    image, window = (1, 28, 28, 64), (3, 3, 64, 64)
    keys = [ConvSpec.conv2d(image, window, dtype=d).key for d in ("float32", "int8")]
    (tmp_path / "keys.txt").write_text("\n".join(keys))
    words = ["bench", str(tmp_path / "keys.txt"), "--untuned", "--rounds", "3"]
    assert cli.main([*words, "--json", str(tmp_path / "out.json")]) == 0

    for row in json.loads((tmp_path / "out.json").read_text())["rows"]:
        for share in ("percent_peak", "percent_fed", "percent_bandwidth"):
            assert row[share] is None or 0 < row[share] <= 103
            assert (row[share] is None) == (share.removeprefix("percent_") in row["above"])


LOW = Roof(1e9, 1e9, tuple(Bandwidth(size << 20, 1e6) for size in (1, 16, 256)))


def test_what_is_faster_than_a_roof_is_said_in_words(capsys):
    """A roof that a busy machine has lowered, or that is none for this kernel."""
    made = Compiled("default", "x86.conv2d.direct", {})
    shares = 1.2, 0.9
    row = cpu_row(Layer("first", SPEC), made, [1.0], shares, LOW, SPEC.flops)
    assert row.percent_peak is None
    assert row.percent_fed == pytest.approx(90)
    assert row.above == {"peak": 1.2, "bandwidth": pytest.approx(SPEC.bytes / 1e6)}

    layers.show(CpuReport((row,), "znver5", 1, "warm", LOW, "a CPU", 1))

    said = capsys.readouterr()
    (line,) = [line for line in said.out.splitlines() if line.startswith("first")]
    assert line.split()[-5:] == ["above", "90", "above", "memory", "default"]
    assert "first is 1.20 times as fast as the FMA peak, which is no limit for it" in said.err


def test_what_is_faster_than_a_roof_is_measured_again_and_so_is_the_roof(tmp_path, monkeypatch):
    path = builder.build([SPEC], "host", tmp_path / "k", logs=[])
    machine = hardware.detect()
    roofs, measure = [LOW], Probe.roof
    monkeypatch.setattr(Probe, "roof", lambda self: roofs.pop() if roofs else measure(self))
    said = []
    report = bench.bench(
        load(path), [Layer("first", SPEC)], machine, 2, lambda what, *_: said.append(what)
    )

    assert any("again: round 2 of 2" in what for what in said)
    assert roofs == []
    assert report.roof.flops_per_second > LOW.flops_per_second


@pytest.mark.parametrize("verb", ["bench", "tune", "compare"])
@pytest.mark.parametrize("threads", [2000, 2**26, 2**31])
def test_more_threads_than_a_multiple_of_the_cores_are_refused(verb, threads, tmp_path, capsys):
    words = [SPEC.key]
    if verb == "compare":
        words = ["--input", "1,8,8,8", "--kernel", "3", "--out-channels", "8"]
    if verb == "tune":
        words += ["--trials", "3", "--output", str(tmp_path)]
    assert cli.main([verb, *words, "--threads", str(threads)]) == 2
    assert "--threads must be at most" in capsys.readouterr().err


def test_other_libraries_are_timed_with_warm_caches_only(capsys):
    assert cli.main(["bench", SPEC.key, "--peers", "all", "--cache", "cold"]) == 2
    assert "leave out --cache" in capsys.readouterr().err


@pytest.mark.skipif(cuda_driver.driver() is not None, reason="there is a driver")
def test_nothing_is_built_for_a_gpu_that_is_not_here(capsys, monkeypatch):
    monkeypatch.setattr(builder, "build", lambda *_: pytest.fail("built"))
    assert cli.main(["bench", SPEC.key, "--machine", "sm_90"]) == 1
    assert "this machine has no NVIDIA driver" in capsys.readouterr().err
