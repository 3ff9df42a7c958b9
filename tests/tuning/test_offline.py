"""Batches of candidates that another machine measures: export, measure there, import, and again."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time

import boards
import inference_venv
import pytest
from offline_batches import COUNT, fails, lines, manifest, measure, measure_command, rewritten, tune
from tuners import FIVE, POINTWISE, THREE, only_x86, workload

import tvmconv
from tvmconv import hardware
from tvmconv.hardware import host
from tvmconv.measuring.places import batch_results
from tvmconv.records import log

pytestmark = only_x86
pytest_plugins = ("tuning_fixtures", "offline_fixtures")

# The round trip


def test_results_become_a_record_and_a_kernel(packs, own, capsys):
    assert tune(own, "slow-default", "--import", own / "c.results") == 0

    (entry,) = log.read_log(own / "logs" / "slow-default" / "conv2d.jsonl")
    assert (entry.record.key, entry.record.trials) == (POINTWISE.key, COUNT)
    assert entry.record.cpu == host.cpu_name()
    assert entry.record.gain > 1.5  # over a default that is many times slower
    assert (entry.record.place, entry.record.cache, entry.record.rounds) == ("offline", "warm", 11)
    assert "1 of 1 layers beat the default" in capsys.readouterr().err

    path = tvmconv.build(POINTWISE, "slow-default", own / "kernels.tvmconv", logs=[own / "logs"])
    kernel = tvmconv.load(path).variant.kernels[POINTWISE.key]
    assert kernel.record.startswith("slow-default/conv2d.jsonl")
    assert kernel.decisions == entry.record.decisions


def test_the_next_batch_goes_on_where_the_results_end(packs, own):
    files = {"--import": own / "c.results", "--export": own / "d.tar"}
    options = [word for pair in files.items() for word in pair]
    assert tune(own, "slow-default", *options, "--batch", COUNT) == 0
    (first,), (second,) = manifest(own / "c.tar").layers, manifest(own / "d.tar").layers

    measured = {kernel.candidate.identity for kernel in first.kernels}
    new = {k.candidate.identity for k in second.kernels if k.seconds is None}
    known = {k.candidate.identity: k.seconds for k in second.kernels if k.seconds is not None}
    assert len(new) == COUNT
    assert not new & measured
    assert set(known) <= measured
    # The yardstick keeps its time, and the best so far compete again.
    assert second.kernels[0].candidate == first.kernels[0].candidate
    timed = batch_results.read(own / "c.results").timed
    assert second.kernels[0].seconds == timed[POINTWISE.key, 0].seconds

    assert measure(own / "d.tar").returncode == 0
    after = batch_results.read(own / "d.results")
    assert {place for _, place in after.timed} == {
        place for place, kernel in enumerate(second.kernels) if kernel.seconds is None
    }
    assert tune(own, "slow-default", "--import", own / "d.results") == 0
    (entry,) = log.read_log(own / "logs" / "slow-default" / "conv2d.jsonl")
    assert entry.record.trials == 2 * COUNT
    # What was learnt already changes nothing, whatever the order.
    assert tune(own, "slow-default", "--import", own / "c.results") == 0
    (again,) = log.read_log(own / "logs" / "slow-default" / "conv2d.jsonl")
    assert again.record == entry.record


def test_when_the_trials_are_made_there_is_no_other_batch(packs, own, capsys):
    options = ["--import", own / "c.results", "--export", own / "d.tar", "--trials", COUNT]
    assert tune(own, "slow-default", *options) == 0
    assert "nothing is left to measure" in capsys.readouterr().err
    assert not (own / "d.tar").exists()


@pytest.mark.slow
def test_bad_candidates_cost_only_themselves(packs, tmp_path, capsys):
    workload(tmp_path, POINTWISE)
    tar = tmp_path / "c.tar"
    assert tune(tmp_path, "faulty-kernels", "--export", tar, "--batch", 8) == 0
    begin = time.monotonic()
    done = measure(tar, "--timeout", 5)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begin < 60
    found = batch_results.read(tmp_path / "c.results")
    errors = {
        kernel.schedule.rpartition(".")[2]: found.timed[POINTWISE.key, place].error
        for place, kernel in enumerate(manifest(tar).layers[0].kernels)
    }
    assert errors.pop("direct") is None
    assert errors["kernel_segfault"] == "crashed the measuring process (SIGSEGV)"
    assert errors["kernel_abort"] == "crashed the measuring process (SIGABRT)"
    assert errors["kernel_unlinked"] == "crashed the measuring process (exit 127)"
    assert errors["kernel_hang"] == "took longer than 5 s"
    assert POINTWISE.key in found.finals

    assert tune(tmp_path, "faulty-kernels", "--import", tmp_path / "c.results") == 0
    assert "crashed the measuring process (SIGSEGV)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_layer_whose_default_cannot_be_compiled_stops_there_and_others_go_on(
    packs, tmp_path, capsys
):
    (tmp_path / "keys.txt").write_text(f"{FIVE.key}\n{THREE.key}\n")
    tar = tmp_path / "c.tar"
    assert tune(tmp_path, "mixed", "--export", tar, "--batch", 4) == 0
    said = capsys.readouterr().err
    assert "4 candidates cannot be compiled, such as: " in said
    assert "no luck today" in said
    assert [layer.key for layer in manifest(tar).layers] == [THREE.key]
    assert measure(tar).returncode == 0
    assert tune(tmp_path, "mixed", "--import", tmp_path / "c.results") == 0
    assert "nothing beats the default" in capsys.readouterr().err
    assert not (tmp_path / "logs" / "mixed" / "conv2d.jsonl").exists()


@pytest.mark.slow
def test_a_layer_whose_default_crashes_on_the_board_stops_there(packs, tmp_path):
    workload(tmp_path, POINTWISE)
    tar = tmp_path / "c.tar"
    assert tune(tmp_path, "faulty-kernels", "--export", tar, "--batch", 3) == 0
    (layer,) = manifest(tar).layers
    swapped = dataclasses.replace(layer, kernels=(layer.kernels[1], layer.kernels[0]))
    done = measure(rewritten(tar, tmp_path, layers=(swapped,)))
    assert done.returncode == 0, done.stderr
    found = batch_results.read(tmp_path / "rewritten.results")
    assert [timed.error for timed in found.timed.values()] == [
        "crashed the measuring process (SIGSEGV)"
    ]
    assert not found.finals


# Cut off on the board


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_what_was_measured_is_kept_and_the_same_command_goes_on(own, how):
    (own / "c.results").unlink()
    with subprocess.Popen(
        measure_command(own / "c.tar"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as running:  # fmt: skip
        while not (own / "c.results").exists() or len(lines(own / "c.results")) < 3:
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
        os.kill(running.pid, how)
        out, err = running.communicate(timeout=60)
    before = (own / "c.results").read_bytes()
    if how == signal.SIGINT:
        assert running.returncode == 130
        assert "interrupted after" in out
        assert "run the same command again" in err
    with open(own / "c.results", "ab") as stream:
        stream.write(b'{"timed": {"lay')  # what a power cut leaves
    done = measure(own / "c.tar")

    assert done.returncode == 0, done.stderr
    after = (own / "c.results").read_bytes()
    assert after.startswith(before)
    timed = [(line["timed"]["layer"], line["timed"]["kernel"])
             for line in lines(own / "c.results") if "timed" in line]  # fmt: skip
    assert sorted(timed) == [(POINTWISE.key, place) for place in range(COUNT)]


def test_an_unfinished_file_counts_and_its_rest_later(packs, own):
    whole = (own / "c.results").read_text().splitlines(keepends=True)
    (own / "part.results").write_text("".join(whole[:4]))
    assert tune(own, "slow-default", "--import", own / "part.results") == 0
    assert not (own / "logs" / "slow-default" / "conv2d.jsonl").exists()
    assert tune(own, "slow-default", "--import", own / "c.results") == 0
    (entry,) = log.read_log(own / "logs" / "slow-default" / "conv2d.jsonl")
    assert entry.record.trials == COUNT


# Real ones: an environment without TVM, and an emulated board


@pytest.fixture(scope="module")
def runtime_only(tmp_path_factory):
    return inference_venv.make(tmp_path_factory.mktemp("runtime"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("options", [(), ("--threads", 2, "--cache", "cold")], ids=str)
def test_the_runtime_alone_measures(packs, runtime_only, tmp_path, options):
    workload(tmp_path, POINTWISE)
    assert (
        tune(tmp_path, "slow-default", "--export", tmp_path / "c.tar", "--batch", 4, *options) == 0
    )
    done = subprocess.run(
        [runtime_only, "-I", "-m", "tvmconv.commands.cli", "measure", tmp_path / "c.tar"],
        cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = subprocess.run([runtime_only, "-c", "import tvm"], capture_output=True, check=False)
    assert found.returncode != 0
    assert len(batch_results.read(tmp_path / "c.results").timed) == 4
    assert tune(tmp_path, "slow-default", "--import", tmp_path / "c.results", *options) == 0
    assert (tmp_path / "logs" / "slow-default" / "conv2d.jsonl").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_emulated_board_measures(tmp_path, monkeypatch):
    """Its times mean nothing, but everything else is as on a real one."""
    boards.require_linker()
    workload(tmp_path, POINTWISE)
    machine, _ = hardware.find_machine("cortex-a72")
    assert tune(tmp_path, "cortex-a72", "--export", tmp_path / "c.tar", "--batch", 4) == 0
    assert "is for aarch64 linux" in fails(tmp_path / "c.tar", tmp_path / "c.results")
    done = boards.on_board("cortex-a72", "tvmconv", "measure", tmp_path / "c.tar", timeout=400)
    assert done.returncode == 0, done.stderr
    found = batch_results.read(tmp_path / "c.results")
    assert found.header.cpu == "Cortex-A72"
    assert set(machine.features) <= set(found.header.features)
    assert [timed.error for timed in found.timed.values()] == [None] * 4
    assert tune(tmp_path, "cortex-a72", "--import", tmp_path / "c.results") == 0
