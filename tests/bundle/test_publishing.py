"""Publishing: readers find the old bundle or the new one, and nobody's own files are touched."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from plain_bundle import manifest
from runtime_calls import ROOT

from tvmconv import errors
from tvmconv.bundle import folder, publishing, reading
from tvmconv.bundle import manifest as bundle

MEMORY = "/dev/shm"  # noqa: S108 - for its being a mount


def staged(path, created, names=("haswell.so",)):
    """A bundle whose files all hold ``created``."""
    path.mkdir()
    for name in ("runtime.so", *names):
        (path / name).write_text(created)
    digest = bundle.file_digest(path / "runtime.so")
    variants = [
        bundle.Variant(
            machine=name.removesuffix(".so"),
            architecture="x86_64",
            os="linux",
            library=name,
            sha256=digest,
            features=(),
            glibc=None,
            runtime=bundle.RuntimeEntry("runtime.so", digest),
            kernels={"a": bundle.KernelEntry("a", "direct", {})},
        )
        for name in names
    ]
    bundle.write_manifest(path, manifest(*variants, created=created))
    return path


def read(path):
    return reading.read(path, lambda found: found.variants[0])


def whole(contents):
    """The build that a manifest and its files are all of."""
    created = contents.manifest.created
    assert {file.contents.decode() for file in contents.files.values()} == {created}
    return created


def test_publish_moves_replaces_and_leaves_nothing_behind(tmp_path):
    for created in ("first", "second"):
        staging = staged(tmp_path / "staging", created)
        published = publishing.publish(staging, tmp_path / "deep" / "kernels")
        assert bundle.read_manifest(published).created == created
        assert (published / "haswell.so").read_text() == created
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["kernels"]
    assert not (tmp_path / "staging").exists()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_publish_mends_a_damaged_bundle(tmp_path, share):
    output = staged(tmp_path / "kernels", "old")
    file = output / bundle.MANIFEST_NAME
    os.truncate(file, int(file.stat().st_size * share))
    publishing.publish(staged(tmp_path / "staging", "new"), output)
    assert whole(read(output)) == "new"


@pytest.mark.parametrize("precious", ["notes.txt", "plugin.so", "mine.so/", "haswell.so/"])
@pytest.mark.parametrize("damaged", [False, True])
def test_publish_does_not_overwrite_what_no_manifest_lists(tmp_path, precious, damaged):
    output = staged(tmp_path / "output", "old")
    mine = output / precious
    if precious.endswith("/"):
        mine.unlink(missing_ok=True)
        mine.mkdir()
        (mine / "thesis").write_text("precious")
    else:
        mine.write_text("precious")
    if damaged:
        os.truncate(output / bundle.MANIFEST_NAME, 500)
    before = sorted(output.rglob("*"))
    staging = staged(tmp_path / "staging", "new")
    with pytest.raises(
        errors.BundleError, match=f"not overwritten: .* lists {precious.rstrip('/')}"
    ):
        publishing.publish(staging, output)
    assert sorted(output.rglob("*")) == before
    assert bundle.read_manifest(staging)


def test_publish_does_not_overwrite_another_programs_manifest(tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    (output / "manifest.json").write_text('{"name": "somebody else\'s"}')
    with pytest.raises(errors.BundleError, match="not overwritten"):
        publishing.publish(staged(tmp_path / "staging", "new"), output)
    assert (output / "manifest.json").read_text() == '{"name": "somebody else\'s"}'


def test_publish_replaces_bundles_of_other_formats_and_other_variants(tmp_path):
    output = staged(tmp_path / "output", "old", ("zen4.so", "zen5.so"))
    file = output / bundle.MANIFEST_NAME
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2}))
    publishing.publish(staged(tmp_path / "staging", "new"), output)
    assert sorted(entry.name for entry in output.iterdir()) == [
        "haswell.so", "manifest.json", "runtime.so",
    ]  # fmt: skip


@pytest.fixture(params=[True, False], ids=["exchange", "two renames"])
def exchanging(request, monkeypatch):
    """Also as on a file system that cannot exchange two directories."""
    if not request.param:
        monkeypatch.setattr(publishing, "_exchange", lambda *_: False)


@pytest.mark.usefixtures("exchanging")
@pytest.mark.skipif(not os.path.ismount(MEMORY), reason="needs a second file system")
def test_publish_keeps_the_old_bundle_when_the_move_fails(tmp_path):
    output = staged(tmp_path / "output", "old")
    with tempfile.TemporaryDirectory(dir=MEMORY) as other:
        staging = staged(Path(other) / "staging", "new")
        with pytest.raises(errors.BundleError, match="different file systems"):
            publishing.publish(staging, output)
        assert whole(read(staging)) == "new"
    assert whole(read(output)) == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["output"]


READER = """
import sys, collections, json, os
from pathlib import Path
from test_publishing import read, whole
from tvmconv import errors
seen = collections.Counter()
while not os.path.exists(sys.argv[2]):
    try:
        seen[whole(read(Path(sys.argv[1])))] += 1
    except errors.BundleError as error:
        seen[str(error)] += 1
print(json.dumps(seen))
"""


@pytest.mark.usefixtures("exchanging")
def test_a_reader_finds_the_old_bundle_or_the_new_one_always(tmp_path):
    output = staged(tmp_path / "output", "0")
    paths = (ROOT, ROOT / "tests" / "support", Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, output, tmp_path / "done"],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    builds = [str(number) for number in range(200)]
    for build in builds[1:]:
        publishing.publish(staged(tmp_path / "staging", build), output)
    (tmp_path / "done").touch()
    out, _ = reader.communicate(timeout=60)
    seen = json.loads(out)
    assert set(seen) <= set(builds)
    assert len(seen) > 2


def test_a_process_that_is_killed_leaves_a_whole_bundle(tmp_path):

    code = (
        "import os, signal, sys\n"
        "from tvmconv.bundle import publishing\n"
        "publishing.shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "publishing.publish(sys.argv[1], sys.argv[2])\n"
    )
    output, staging = staged(tmp_path / "output", "old"), staged(tmp_path / "staging", "new")
    done = subprocess.run(
        [sys.executable, "-c", code, staging, output],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == -signal.SIGKILL
    assert whole(read(output)) == "new"
    assert whole(read(staging)) == "old"


def test_a_reader_goes_on_with_the_folder_that_it_opened(tmp_path):
    output = staged(tmp_path / "output", "old")
    with folder.Folder(output) as opened:
        kept = tmp_path / "kept"
        os.rename(output, kept)  # as an exchange does it, before the old one is removed
        publishing.publish(staged(tmp_path / "staging", "new"), output)
        assert opened.read("haswell.so").contents == b"old"
        assert opened.is_replaced()


def test_install_takes_a_whole_copy_behind_links(tmp_path):
    source, output = staged(tmp_path / "source", "new"), staged(tmp_path / "output", "old")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(source.iterdir())):  # as Hugging Face's cache keeps them
        os.rename(file, blobs / str(number))
        file.symlink_to(blobs / str(number))
    publishing.install(source, output)
    assert whole(read(output)) == "new"
    assert not any(entry.is_symlink() for entry in output.iterdir())
    assert whole(read(source)) == "new"


def test_install_does_not_put_a_torn_copy_live(tmp_path):
    source, output = staged(tmp_path / "source", "new"), staged(tmp_path / "output", "old")
    os.truncate(source / "haswell.so", 1)
    with pytest.raises(errors.BundleError, match="truncated or altered"):
        publishing.install(source, output)
    assert whole(read(output)) == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["output", "source"]


def test_files_that_are_no_files_are_refused_at_once(tmp_path):
    output = staged(tmp_path / "output", "old")
    (output / "haswell.so").unlink()
    os.mkfifo(output / "haswell.so")
    with pytest.raises(errors.BundleError, match="not a regular file"):
        read(output)


def test_publish_replaces_the_target_of_a_link(tmp_path):
    staged(tmp_path / "v1", "old")
    (tmp_path / "current").symlink_to("v1")
    publishing.publish(staged(tmp_path / "staging", "new"), tmp_path / "current")
    assert (tmp_path / "current").is_symlink()
    assert whole(read(tmp_path / "v1")) == "new"
