"""Batches and results that are torn, altered, of something else, or in the way of each other."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import tarfile
from pathlib import Path

import pytest
from offline_batches import fails, manifest, rewritten, tune
from tuners import POINTWISE, THREE, only_x86, workload

from tvmconv.errors import BatchError, IncompatibleMachineError
from tvmconv.hardware import host
from tvmconv.measuring.places import batch as batches
from tvmconv.measuring.places import batch_measuring, batch_results

pytestmark = only_x86
pytest_plugins = ("tuning_fixtures", "offline_fixtures")

# Bad input on the board


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.5, 0.99])
def test_a_torn_batch(own, share):
    content = (own / "c.tar").read_bytes()
    (own / "torn.tar").write_bytes(content[: int(share * len(content))])
    message = fails(own / "torn.tar", own / "new.results")
    assert "torn.tar is torn, or no batch of candidates" in message
    assert "copy it again" in message
    assert not (own / "new.results").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_batch_whose_list_is_no_plain_file(own, kind):
    """A link may point at itself."""
    with tarfile.open(own / "linked.tar", "w") as tar:
        member = tarfile.TarInfo("batch.json")
        member.type, member.linkname = kind, "batch.json"
        tar.addfile(member)

    message = fails(own / "linked.tar", own / "new.results")
    assert "batch.json is no plain file" in message


@pytest.mark.timeout(60)
@pytest.mark.parametrize("sparse", [True, False])
def test_a_batch_with_a_member_of_a_terabyte(own, sparse):
    size = 1 << 40
    member = tarfile.TarInfo("batch.json")
    member.size = size
    if sparse:
        member.size = 0
        fields = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(size)}
        member.pax_headers = {**fields, "GNU.sparse.map": "0,0"}
    file = own / "large.tar"
    file.write_bytes(member.tobuf(tarfile.PAX_FORMAT))
    with file.open("ab") as stream:
        stream.truncate(stream.tell() + member.size + 1024)

    message = fails(file, own / "new.results")
    assert ("no plain file" if sparse else "more than") in message


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
        batch_measuring.measure(tar, own / "new.results", lambda *_: None)


def test_a_newer_format_and_a_newer_glibc(own, tmp_path):
    tar = rewritten(own / "c.tar", tmp_path, glibc="9.99")
    assert "needs glibc 9.99 or newer, this system has glibc 2." in fails(tar, own / "new.results")
    body = {**batches.encode(manifest(own / "c.tar")), "format": 99, "tvmconv": "7.0"}
    with pytest.raises(BatchError, match=r"format 99, written by tvmconv 7\.0; .* reads format 3"):
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
        batch_results.ResultsWriter(own / "x", full, None).add(
            batch_results.Header("b", "m", "c", (), None, 1.0, "0")
        )


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
