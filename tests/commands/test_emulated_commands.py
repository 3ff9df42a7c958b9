"""The command line with a GPU, the emulated one, from building to tuning, in processes of its own."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import emulated_driver
import pytest

from tvmconv.measuring.places import batch as batches
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import log

pytestmark = [pytest.mark.slow, emulated_driver.needs_emulation]
LAYER = ConvSpec.conv2d(
    (1, 7, 7, 32), (1, 1, 32, 32), bias=True, activation="relu", dtype="float16"
).key
MAIN = "import sys; from tvmconv.commands.cli import main; sys.exit(main())"
ILLEGAL = "an illegal memory access was encountered"
HERE = "cuda:0: NVIDIA H100 (emulated), sm_90, 2 GiB"


def run(*words, **settings):
    return emulated_driver.run("-c", MAIN, *map(str, words), **settings)


def right(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With b.tvmconv and c.tar: a bundle of the layer, and a batch of three candidates."""
    made = tmp_path_factory.mktemp("commands")
    right(run("build", LAYER, "--machine", "sm_90", "--output", made / "b.tvmconv"))
    words = ("--export", made / "c.tar", "--batch", 3, "--output", made / "logs")
    right(run("tune", LAYER, "--machine", "sm_90", *words))
    return made


def test_doctor_and_machines_name_the_gpu():
    found = {c["name"]: c for c in json.loads(right(run("doctor", "--json")))["checks"]}
    assert found["NVIDIA driver"]["found"] == f"for CUDA 13.0; {HERE}"
    assert found["CUDA runtime"]["found"] == str(emulated_driver.folder() / "libcudart.so.13")
    machines = right(run("machines", gpus="sm_75,sm_90"))
    assert "Its GPU cuda:0: Tesla T4 (emulated), sm_75, 2 GiB runs what is built for" in machines
    assert "cuda:1: NVIDIA H100 (emulated)" in machines


def test_verify_checks_the_kernels_on_the_gpu(folder):
    assert f"1 of 1 kernels for sm_90 are right on {HERE}" in right(
        run("verify", folder / "b.tvmconv")
    )
    done = run("verify", folder / "b.tvmconv", gpus="sm_80")
    assert "sm_90 needs a GPU of sm_90 or newer, this one is sm_80" in done.stderr


def test_verify_and_bench_tell_of_an_illegal_address(folder):
    fault = {"EMULATED_FAULT": "relu_kernel"}
    done = run("verify", folder / "b.tvmconv", **fault)
    assert (done.returncode, ILLEGAL in done.stdout) == (1, True), done.stderr
    done = run("bench", LAYER, "--bundle", folder / "b.tvmconv", **fault)
    assert (done.returncode, ILLEGAL in done.stderr) == (1, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("cache", ["warm", "cold"])
def test_bench_shows_a_time(folder, cache):
    out = right(run("bench", LAYER, "--bundle", folder / "b.tvmconv", "--cache", cache))
    assert f"sm_90, {HERE}" in out
    # Of the emulated driver, where every kernel takes a millisecond, and so does filling L2, which does not
    # count; this layer's sums are in parts or not.
    assert re.search(rf"{LAYER} +1 +(1|2)000", out)


def results(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def timed(path):
    return [line["timed"] for line in results(path) if "timed" in line]


def test_measured_candidates_become_a_record(folder, tmp_path):
    file = tmp_path / "c.results"
    assert "measured 3 candidates, 0 failed; 1 layers compared" in right(
        run("measure", folder / "c.tar", "--output", file)
    )
    assert results(file)[0]["results"]["cpu"] == "NVIDIA H100 (emulated)"

    # Times mean nothing here, so which candidate is best is written by hand.
    lines = results(file)
    (final,) = (line["final"] for line in lines if "final" in line)
    for process in final["times"]:
        for place, rounds in enumerate(process):
            rounds[:] = [2e-3 if place == 0 else 1e-3 for _ in rounds]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    logs = tmp_path / "logs"
    shutil.copytree(folder / "logs", logs)
    done = run("tune", LAYER, "--machine", "sm_90", "--import", file, "--output", logs)
    assert right(done) == ""
    assert "1 of 1 layers beat the default" in done.stderr
    (entry,) = log.read_log(logs / "sm_90" / "conv2d.jsonl")
    assert (entry.record.cpu, entry.record.gain) == ("NVIDIA H100 (emulated)", 2.0)


def test_a_candidate_with_an_illegal_address_costs_itself_alone(folder, tmp_path):
    file = tmp_path / "c.results"
    with tarfile.open(folder / "c.tar") as opened:
        batch = batches.parse(opened.extractfile("batch.json").read(), "c.tar")
    symbols = [kernel.built.symbol for kernel in batch.layers[0].kernels]
    fault = next(symbol for symbol in symbols if symbol != symbols[0])  # not the default's
    right(run("measure", folder / "c.tar", "--output", file, EMULATED_FAULT=f"{fault}_kernel"))

    assert [each["error"] is None for each in timed(file)] == [each != fault for each in symbols]
    assert all(ILLEGAL in each["error"] for each in timed(file) if each["error"])


def test_measure_on_another_gpu_names_both(folder, tmp_path):
    done = run("measure", folder / "c.tar", "--output", tmp_path / "r", gpus="sm_80")
    assert done.returncode != 0
    assert "on an NVIDIA GPU of sm_90, and this machine has cuda:0: NVIDIA A100" in done.stderr


def test_an_interrupted_measurement_goes_on_where_it_was(folder, tmp_path):
    file = tmp_path / "c.results"
    command = [sys.executable, "-c", MAIN, "measure", str(folder / "c.tar"), "--output", str(file)]
    process = subprocess.Popen(
        command,
        env=emulated_driver.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and not (file.exists() and timed(file)):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    before = timed(file)
    assert before

    right(run("measure", folder / "c.tar", "--output", file))
    assert timed(file)[: len(before)] == before
    assert sorted(each["kernel"] for each in timed(file)) == [0, 1, 2]


def test_tuning_where_the_gpu_is(tmp_path):
    words = ("--trials", 2, "--output", tmp_path / "logs")
    done = run("tune", LAYER, "--machine", "sm_90", *words)

    assert "tuned 1 of 1 layers" in right(done)
    assert "2 trials, 0 failed" in done.stderr
