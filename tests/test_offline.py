"""Batches of candidates that another machine measures: export, measure there, import, and again."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import boards
import pytest
import runtime_venv
from tuning_helpers import FIVE, POINTWISE, THREE, faulty_packs, only_x86, workload

import tvmconv
from tvmconv import cli, hardware, host
from tvmconv.errors import BatchError, IncompatibleMachineError
from tvmconv.tuning import batch as batches
from tvmconv.tuning import board, log, results

pytestmark = only_x86
COUNT = 6  # candidates of a layer in a batch of these tests


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    with faulty_packs(tmp_path_factory.mktemp("packs")) as directory:
        yield directory


def tune(folder: Path, machine: str, *options: object) -> int:
    """``tvmconv tune`` for what ``folder/keys.txt`` names, with records in ``folder/logs``."""
    words = [folder / "keys.txt", "--machine", machine, "--output", folder / "logs", *options]
    return cli.main(["tune", *map(str, words)])


def measure_command(tar: Path, *options: object) -> list[str]:
    return [sys.executable, "-m", "tvmconv.cli", "measure", *map(str, (tar, *options))]


def measure(tar: Path, *options: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which knows nothing of the imaginary machines' packs."""
    return subprocess.run(
        measure_command(tar, *options), capture_output=True, text=True, timeout=200, check=False
    )


def manifest(tar: Path) -> batches.Batch:
    with tarfile.open(tar) as opened:
        return batches.parse(opened.extractfile("batch.json").read(), str(tar))


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def rewritten(tar: Path, folder: Path, **changes) -> Path:
    """The same batch, said to be of something else."""
    unpacked = folder / "unpacked"
    unpacked.mkdir()
    batch = manifest(tar)
    with tarfile.open(tar) as opened:
        for name in batch.files:
            (unpacked / name).write_bytes(opened.extractfile(name).read())
    target = folder / "rewritten.tar"
    changed = dataclasses.replace(batch, **changes)
    batches.write(target, changed, [unpacked / name for name in batch.files])
    return target


@pytest.fixture(scope="module")
def made(packs, tmp_path_factory):
    """A folder with a batch of a layer whose default is slow, and its results; do not write there."""
    folder = tmp_path_factory.mktemp("made")
    workload(folder, POINTWISE)
    assert tune(folder, "slow-default", "--export", folder / "c.tar", "--batch", COUNT) == 0
    done = measure(folder / "c.tar")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def own(made, tmp_path):
    """A copy of it."""
    folder = tmp_path / "own"
    shutil.copytree(made, folder)
    return folder


# The round trip


def test_results_become_a_record_and_a_kernel(packs, own, capsys):
    assert tune(own, "slow-default", "--import", own / "c.results") == 0

    (entry,) = log.read_log(own / "logs" / "slow-default" / "conv2d.jsonl")
    assert (entry.record.key, entry.record.trials) == (POINTWISE.key, COUNT)
    assert entry.record.cpu == host.cpu_name()
    assert entry.record.gain > 1.5  # over a default that is many times slower
    assert entry.record.measured.startswith("offline, warm cache, median of 11 rounds")
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
    timed = results.read(own / "c.results").timed
    assert second.kernels[0].seconds == timed[POINTWISE.key, 0].seconds

    assert measure(own / "d.tar").returncode == 0
    after = results.read(own / "d.results")
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
    found = results.read(tmp_path / "c.results")
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
    found = results.read(tmp_path / "rewritten.results")
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


# Bad input on the board


def fails(tar: Path, output: Path, *options: object) -> str:
    done = measure(tar, "--output", output, *options)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.5, 0.99])
def test_a_torn_batch(own, share):
    content = (own / "c.tar").read_bytes()
    (own / "torn.tar").write_bytes(content[: int(share * len(content))])
    message = fails(own / "torn.tar", own / "new.results")
    assert "torn.tar is torn, or no batch of candidates" in message
    assert "copy it again" in message
    assert not (own / "new.results").exists()


def test_an_altered_batch(own):
    content = bytearray((own / "c.tar").read_bytes())
    batch = manifest(own / "c.tar")
    with tarfile.open(own / "c.tar") as opened:
        content[opened.getmember(batch.roof).offset_data + 100] ^= 1
    (own / "altered.tar").write_bytes(content)
    message = fails(own / "altered.tar", own / "new.results")
    assert f"altered: {batch.roof} is not what it was" in message


def test_a_batch_that_names_files_elsewhere(own, tmp_path):
    batch = manifest(own / "c.tar")
    body = batches.encode(batch)
    body["files"]["../outside.so"] = "0" * 64
    with pytest.raises(BatchError, match=r"'../outside.so' is not a plain file name"):
        batches.parse(json.dumps(body), "it")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "sparc64"}, "is for sparc64 linux, this process is x86_64 linux"),
        ({"features": ("sse2", "telepathy")}, "needs telepathy, which this CPU lacks"),
    ],
)
def test_another_machines_batch(own, tmp_path, changes, message):
    machine = dataclasses.replace(manifest(own / "c.tar").machine, **changes)
    tar = rewritten(own / "c.tar", tmp_path, machine=machine)
    assert message in fails(tar, own / "new.results")
    assert not (own / "new.results").exists()
    with pytest.raises(IncompatibleMachineError, match="Measure it on a slow-default"):
        board.measure(tar, own / "new.results", lambda *_: None)


def test_a_newer_format_and_a_newer_glibc(own, tmp_path):
    tar = rewritten(own / "c.tar", tmp_path, glibc="9.99")
    assert "needs glibc 9.99 or newer, this system has glibc 2." in fails(tar, own / "new.results")
    body = {**batches.encode(manifest(own / "c.tar")), "format": 99, "tvmconv": "7.0"}
    with pytest.raises(BatchError, match=r"format 99, written by tvmconv 7\.0; .* reads format 2"):
        batches.parse(json.dumps(body), "it")


def test_results_of_another_batch_or_cpu_are_not_mixed(own, tmp_path):
    tar = rewritten(own / "c.tar", tmp_path, rounds=5)
    message = fails(tar, own / "c.results")
    assert f"has results of batch {manifest(own / 'c.tar').name}, this one is" in message

    text = (own / "c.results").read_text().replace(host.cpu_name(), "Cortex-A72")
    (own / "c.results").write_text(text)
    assert "was measured on Cortex-A72, this is" in fails(own / "c.tar", own / "c.results")


@pytest.mark.parametrize("output", ["nowhere/x.results", "c.tar/x.results", "logs"])
def test_no_writable_folder(own, output):
    (own / "logs").mkdir(exist_ok=True)
    message = fails(own / "c.tar", own / output)
    assert f"cannot write {own / output}: " in message
    assert "with --output" in message


def test_something_else_is_not_overwritten(own):
    (own / "notes.txt").write_text("my notes\nand more\n")
    assert "notes.txt, line 1: no result of `tvmconv measure`" in fails(
        own / "c.tar", own / "notes.txt"
    )
    assert (own / "notes.txt").read_text() == "my notes\nand more\n"


def test_two_at_once(own):
    with open(own / "c.results", "ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert "another `tvmconv measure` is at work" in fails(own / "c.tar", own / "c.results")


def test_a_full_disk_is_said_and_what_was_written_stays(own):
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(BatchError, match="No space"):
        results.Book(own / "x", full, None).add(results.Header("b", "m", "c", (), None, 1.0, "0"))


# Bad input where the batch was made


def refuses(capsys, folder: Path, machine: str, *options: object, code: int = 1) -> str:
    assert tune(folder, machine, *options) == code
    return capsys.readouterr().err


def test_torn_results(packs, own, capsys):
    content = (own / "c.results").read_bytes()
    (own / "torn.results").write_bytes(content[:-20])
    message = refuses(capsys, own, "slow-default", "--import", own / "torn.results")
    assert "torn.results is torn: " in message
    assert "Copy it again" in message
    (own / "torn.results").write_bytes(content.replace(b'"kernel": 3', b'"kernel": tree'))
    message = refuses(capsys, own, "slow-default", "--import", own / "torn.results")
    assert "torn.results, line 5: no result of `tvmconv measure`" in message
    (own / "torn.results").write_bytes(content.replace(b'"kernel": 3', b'"kernel": 300'))
    message = refuses(capsys, own, "slow-default", "--import", own / "torn.results")
    assert "its batch has no candidate 300" in message
    (own / "torn.results").write_bytes(b"")
    message = refuses(capsys, own, "slow-default", "--import", own / "torn.results")
    assert "torn.results is empty" in message
    assert "No such file" in refuses(capsys, own, "slow-default", "--import", own / "none")
    assert not (own / "logs" / "slow-default" / "conv2d.jsonl").exists()


def test_results_that_belong_to_something_else(packs, own, tmp_path, capsys):
    name = manifest(own / "c.tar").name
    options = ["--import", own / "c.results"]
    message = refuses(capsys, own, "sound", *options)
    assert "was measured for slow-default, not for sound: give --machine slow-default" in message
    message = refuses(capsys, own, "slow-default", *options, "--cache", "cold")
    assert f"is of batch {name}, which was not exported for slow-default with 1 threads" in message
    workload(own, THREE)
    message = refuses(capsys, own, "slow-default", *options)
    assert f"layers that this workload has not, such as {POINTWISE.key}" in message
    workload(own, POINTWISE)
    assert tune(own, "slow-default", *options) == 0
    other = own / "other.results"
    other.write_text((own / "c.results").read_text().replace(host.cpu_name(), "Cortex-A72"))
    message = refuses(capsys, own, "slow-default", "--import", other)
    assert "was measured on Cortex-A72, the results before on" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "4"], "give --export"),
        (["--export", "c.tar", "--minutes", "1"], "--minutes counts time measured here"),
        (["--import", "c.results", "--again"], "--again would forget"),
    ],
)
def test_options_that_do_not_go_together(packs, own, capsys, options, message):
    assert message in refuses(capsys, own, "slow-default", *options, code=2)


def test_a_machine_that_is_elsewhere_is_told_of_export(own, capsys):
    message = refuses(capsys, own, "cortex-a72")
    assert "give --export FILE, and measure that file on a cortex-a72" in message


# Real ones: an environment without TVM, and an emulated board


@pytest.fixture(scope="module")
def runtime_only(tmp_path_factory):
    return runtime_venv.make(tmp_path_factory.mktemp("runtime"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("options", [(), ("--threads", 2, "--cache", "cold")], ids=str)
def test_the_runtime_alone_measures(packs, runtime_only, tmp_path, options):
    workload(tmp_path, POINTWISE)
    assert (
        tune(tmp_path, "slow-default", "--export", tmp_path / "c.tar", "--batch", 4, *options) == 0
    )
    done = subprocess.run(
        [runtime_only, "-I", "-m", "tvmconv.cli", "measure", tmp_path / "c.tar"],
        cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = subprocess.run([runtime_only, "-c", "import tvm"], capture_output=True, check=False)
    assert found.returncode != 0
    assert len(results.read(tmp_path / "c.results").timed) == 4
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
    found = results.read(tmp_path / "c.results")
    assert found.header.cpu == "Cortex-A72"
    assert set(machine.features) <= set(found.header.features)
    assert [timed.error for timed in found.timed.values()] == [None] * 4
    assert tune(tmp_path, "cortex-a72", "--import", tmp_path / "c.results") == 0
