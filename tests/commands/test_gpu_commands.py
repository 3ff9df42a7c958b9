"""What the command line says of GPUs where there is none: verify, inspect, machines, doctor."""

from __future__ import annotations

import json

import gpu_bundles
import pytest

from tvmconv.commands import verify
from tvmconv.commands.cli import main
from tvmconv.hardware import cuda_driver

no_driver = pytest.mark.skipif(cuda_driver.driver() is not None, reason="this machine has a driver")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    return gpu_bundles.build(folder, ["host", "toy-90"], [gpu_bundles.PLAIN, gpu_bundles.EMPTY])


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@no_driver
@gpu_bundles.needs_compiler
def test_verify_checks_the_cpu_and_says_that_it_did_not_check_the_gpu(run, built):
    code, out, _ = run("verify", built)
    assert code == 0
    assert "2 of 2 kernels for" in out
    assert "not checked: toy-90 are for GPUs; this machine shows no NVIDIA GPU" in out

    found = json.loads(run("verify", built, "--json")[1])
    assert found["gpu_not_checked"] == "this machine shows no NVIDIA GPU"
    assert len(found["kernels"]) == 2
    assert "gpu_not_checked" in found


@no_driver
@gpu_bundles.needs_compiler
@pytest.mark.parametrize("options", [["--device", "cuda"], ["--machine", "toy-90"]])
def test_verify_on_a_gpu_that_was_asked_for_fails_without_one(run, built, options):
    code, out, err = run("verify", built, *options)

    assert code != 0
    assert "no NVIDIA driver" in err
    assert "are right" not in out


@gpu_bundles.needs_compiler
def test_verify_on_the_cpu_alone(run, built):
    _, out, _ = run("verify", built, "--device", "cpu")

    assert "2 of 2 kernels" in out
    assert "not checked" not in out


@gpu_bundles.needs_compiler
def test_a_gpu_older_than_the_kernels_is_named(monkeypatch, built):
    from tvmconv.bundle import manifest as bundle

    monkeypatch.setattr(cuda_driver, "devices", lambda: [gpu_bundles.T4])
    manifest = bundle.read_manifest(built)

    assert "Tesla T4, sm_75, 16 GiB is older than sm_90" in verify._no_gpu(manifest)
    monkeypatch.setattr(cuda_driver, "devices", lambda: [gpu_bundles.B200])
    assert verify._no_gpu(manifest) is None


def test_machines_lists_facts_of_gpus_and_what_runs_on_the_one_here(run, monkeypatch):
    monkeypatch.setattr(cuda_driver, "devices", lambda: [gpu_bundles.RTX_3090, gpu_bundles.V100])
    out = run("machines")[1]
    assert (
        "Its GPU cuda:0: NVIDIA GeForce RTX 3090, sm_86, 16 GiB runs what is built for sm_86" in out
    )
    assert "too old" in out

    found = json.loads(run("machines", "--json")[1])
    (hopper,) = (each for each in found["machines"] if each["name"] == "sm_90")
    assert hopper["gpu"]["multiprocessors"] == 132
    assert [each["name"] for each in found["gpus"]] == [
        gpu_bundles.RTX_3090.name,
        gpu_bundles.V100.name,
    ]


def test_doctor_names_compiler_library_and_driver(run):
    found = {check["name"]: check for check in json.loads(run("doctor", "--json")[1])["checks"]}

    assert not found["CUDA compiler"]["essential"]
    assert not found["CUDA runtime"]["essential"]
    assert not found["NVIDIA driver"]["essential"]
    if cuda_driver.driver() is None:
        assert found["NVIDIA driver"]["found"] == "no NVIDIA driver"
    if not found["CUDA compiler"]["ok"]:
        assert "cuda-compiler" in found["CUDA compiler"]["remedy"]
