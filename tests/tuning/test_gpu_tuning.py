"""Tuning for a GPU where there is none: batches with nvcc's code, results that come back, and refusals.

The results are written by hand: only a machine with a GPU measures.
"""

from __future__ import annotations

import dataclasses
import tarfile
import tempfile

import gpu_bundles
import pytest
from gpu_bundles import A100, H100, H200

from tvmconv.building.cuda import fatbin
from tvmconv.commands import cli
from tvmconv.errors import BatchError, IncompatibleMachineError
from tvmconv.hardware import cuda_driver, find_machine
from tvmconv.measuring.places import batch as batches
from tvmconv.measuring.places import batch_measuring, batch_results
from tvmconv.measuring.places.batch_results import Final, Header, Timed
from tvmconv.measuring.places.here import Here
from tvmconv.measuring.process import device
from tvmconv.measuring.process.runner import Conditions
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import log
from tvmconv.runtime.cuda import opening as runtime_gpu
from tvmconv.tuning import conclude
from tvmconv.tuning.plan import conditions_name

no_driver = pytest.mark.skipif(cuda_driver.driver() is not None, reason="this machine has a driver")

LAYER = ConvSpec.conv2d(
    (1, 7, 7, 32), (1, 1, 32, 32), bias=True, activation="relu", dtype="float16"
)
COUNT = 3
DRIVER = "driver 580.65.06, CUDA 13.0"


@pytest.fixture
def tune(capsys):
    def call(*options):
        code = cli.main(["tune", LAYER.key, "--machine", "sm_90", *map(str, options)])
        return code, capsys.readouterr().err

    return call


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A batch of a small layer, compiled for sm_90; do not write there."""
    folder = tmp_path_factory.mktemp("gpu-tuning")
    words = ["--export", folder / "c.tar", "--batch", COUNT, "--output", folder / "logs"]
    words = ["tune", LAYER.key, "--machine", "sm_90", *map(str, words), "--cache", "cold"]
    assert cli.main(words) == 0
    return folder


def manifest(tar):
    with tarfile.open(tar) as opened:
        return batches.parse(opened.extractfile("batch.json").read(), str(tar))


@gpu_bundles.needs_compiler
def test_a_batch_holds_device_code_and_both_runtimes(exported):
    batch = manifest(exported / "c.tar")

    (layer,) = batch.layers
    assert (layer.key, len(layer.kernels)) == (LAYER.key, COUNT)
    assert (batch.machine.name, batch.cache, batch.roof) == ("sm_90", "cold", None)
    assert batch.cuda_runtime == "libtvm_runtime_cuda-x86_64.so"
    assert {batch.runtime, batch.cuda_runtime} < set(batch.files)
    with tarfile.open(exported / "c.tar") as opened:
        for built in (kernel.built for kernel in layer.kernels):
            code = fatbin.device_code(opened.extractfile(built.library).read())
            assert code.cubins == {"sm_90"}
    # Several candidates of one call of nvcc are in one library.
    assert len({kernel.built.library for kernel in layer.kernels}) < COUNT
    assert any(kernel.built.symbol != "main0" for kernel in layer.kernels)


@no_driver
@gpu_bundles.needs_compiler
def test_measuring_it_without_a_driver_says_what_is_missing(exported, tmp_path, capsys):
    code = cli.main(["measure", str(exported / "c.tar"), "--output", str(tmp_path / "r")])

    assert code != 0
    assert (
        "on an NVIDIA GPU of sm_90, and this machine has no NVIDIA driver"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "r").exists()


def written(folder, name="c.results", gpu=H100.name, fast=2):
    """Results as `tvmconv measure` on a GPU writes them: candidate ``fast`` takes half the default's time."""
    batch = manifest(folder / "c.tar")
    header = Header(batch.name, "sm_90", gpu, (), DRIVER, 1e15, "0.1.0")
    with batch_results.opened(folder / name) as book:
        book.add(header)
        for place in range(COUNT):
            book.add(Timed(LAYER.key, place, 4e-6 if place == fast else 8e-6 + place * 1e-7))
        ranked = (0, fast, *(place for place in range(1, COUNT) if place != fast))
        times = tuple((4e-6 if place == fast else 8e-6,) * conclude.ROUNDS for place in ranked)
        book.add(Final(LAYER.key, ranked, (times,) * conclude.PROCESSES))
    return folder / name


@gpu_bundles.needs_compiler
def test_results_become_a_record_that_names_card_driver_and_cache(exported, tmp_path, tune):
    import shutil

    folder = tmp_path / "own"
    shutil.copytree(exported, folder)
    file = written(folder)
    common = ["--cache", "cold", "--output", folder / "logs"]
    assert tune("--import", file, *common)[0] == 0

    (entry,) = log.read_log(folder / "logs" / "sm_90" / "conv2d.jsonl")
    record = entry.record
    winner = manifest(folder / "c.tar").layers[0].kernels[2]
    assert (record.schedule, record.decisions) == (winner.schedule, winner.decisions)
    assert (record.machine, record.cpu, record.gain) == ("sm_90", H100.name, 2.0)
    assert (record.place, record.driver, record.cache, record.rounds) == (
        "offline",
        DRIVER,
        "cold",
        11,
    )

    code, err = tune("--import", written(folder, "h200.results", H200.name), *common)
    assert code != 0
    assert f"was measured on {H200.name}, the results before on {H100.name}" in err

    assert tune("--export", folder / "d.tar", "--batch", COUNT, *common)[0] == 0
    again = manifest(folder / "d.tar").layers[0].kernels
    assert again[0].seconds == 8e-6  # the default, known, beside which the new ones are timed
    known = {kernel.candidate.identity for kernel in manifest(folder / "c.tar").layers[0].kernels}
    fresh = [kernel for kernel in again if kernel.seconds is None]
    assert fresh
    assert not known & {kernel.candidate.identity for kernel in fresh}


@gpu_bundles.needs_compiler
def test_results_of_another_card_or_driver_are_not_continued(exported, tmp_path, monkeypatch):
    import shutil

    folder = tmp_path / "own"
    shutil.copytree(exported, folder)
    file = written(folder)
    batch = manifest(folder / "c.tar")
    monkeypatch.setattr(device, "find", lambda _machine: device.Found(H200, 1, DRIVER))

    with pytest.raises(
        BatchError, match=r"measured on NVIDIA H100.*, this is NVIDIA H200, driver 580"
    ):
        batch_measuring._require_same(batch_results.read(file).header, batch, file)
    monkeypatch.setattr(device, "find", lambda _machine: device.Found(H100, 1, DRIVER))
    batch_measuring._require_same(batch_results.read(file).header, batch, file)


@no_driver
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "this machine has no NVIDIA driver (libcuda.so.1). Give --export candidates.tar"),
        (["--threads", 2], "--threads is for CPUs"),
    ],
)
def test_what_cannot_be_measured_names_the_offline_way(tune, tmp_path, options, said):
    code, err = tune("--trials", 1, "--output", tmp_path / "logs", *options)

    assert code != 0
    assert said in err
    assert not (tmp_path / "logs").exists()


def test_the_gpu_must_be_of_the_very_architecture(monkeypatch):
    machine = find_machine("sm_90")[0]
    monkeypatch.setattr(cuda_driver, "driver", lambda: object())
    monkeypatch.setattr(cuda_driver, "driver_name", lambda _library: DRIVER)
    monkeypatch.setattr(cuda_driver, "open_cudart", lambda: None)
    monkeypatch.setattr(runtime_gpu, "find_device", lambda _index: None)
    monkeypatch.setattr(cuda_driver, "devices", lambda: [A100])
    with pytest.raises(IncompatibleMachineError, match=r"of sm_90, and this machine has .*A100"):
        device.find(machine)
    assert conditions_name(Here().journal_name(machine), Conditions()).startswith(
        "no-gpu_1-threads_warm"
    )

    monkeypatch.setattr(cuda_driver, "devices", lambda: [A100, H200, H100])
    assert device.find(machine) == device.Found(H200, 3, DRIVER)
    assert conditions_name(Here().journal_name(machine), Conditions()).startswith(
        "nvidia-h200_1-threads_warm"
    )


class Driver:
    """The driver's two functions that `uuid_of` calls, with two cards."""

    def cuDeviceGet(self, handle, index):  # noqa: N802 - CUDA's names
        handle._obj.value = 100 + index
        return 0

    def cuDeviceGetUuid_v2(self, made, handle):  # noqa: N802
        made.raw = bytes([handle.value] * 16)
        return 0


def test_two_servers_do_not_measure_on_one_card(monkeypatch, tmp_path):
    machine = find_machine("sm_90")[0]
    cards = [H100, dataclasses.replace(H100, index=1)]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cuda_driver, "driver", Driver)

    def use(card):
        monkeypatch.setattr(device, "find", lambda _machine: device.Found(card, 2, DRIVER))

    use(cards[0])
    with device.claimed(machine):
        with (
            pytest.raises(IncompatibleMachineError, match="CUDA_VISIBLE_DEVICES=1 tvmconv board"),
            device.claimed(machine),
        ):
            pass
        with device.claimed(find_machine("cortex-a72")[0]):  # a CPU
            pass
        use(cards[1])
        with device.claimed(machine):
            pass
    use(cards[0])
    with device.claimed(machine):
        pass
