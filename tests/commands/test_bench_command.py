"""``tvmconv bench`` on this CPU, with warm and with cold caches."""

from __future__ import annotations

import json

import pytest
from tuners import only_x86

from tvmconv.building import builder
from tvmconv.commands import cli
from tvmconv.hardware import cuda_driver
from tvmconv.measuring.roof import timing
from tvmconv.problem.spec import ConvSpec

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
