"""What is loaded is a private copy: it outlives changes of its file, and is unmapped when it is not used."""

import gc
import os
import shutil
from pathlib import Path

import plain_bundle
import pytest
from plain_bundle import TINY, assert_right, operands, runtime_file, signed
from runtime_calls import in_new_process, shared_bundle

from tvmconv.bundle import manifest
from tvmconv.runtime import load


@pytest.fixture(scope="module")
def path():
    return shared_bundle()


OVERWRITTEN = """
import json, shutil, sys
from pathlib import Path
import plain_bundle as b
import tvmconv
path, other = map(Path, sys.argv[1:])
x, w, _, _ = b.operands(b.LARGE)
layer = tvmconv.load(path, threads=1)[b.LARGE].bind(w)
b.assert_right(b.LARGE, layer(x), x, w)
for file in path.iterdir():
    file.write_bytes(b"")  # as `cp` does first
b.assert_right(b.LARGE, layer(x), x, w)
try:
    tvmconv.load(path)
    said = ""
except tvmconv.errors.BundleError as error:
    said = str(error)
for file in other.iterdir():
    shutil.copyfile(file, path / file.name)
b.assert_right(b.TINY, tvmconv.load(path, threads=1)[b.TINY](*b.operands(b.TINY)[:2]),
               *b.operands(b.TINY)[:2])
b.assert_right(b.LARGE, layer(x), x, w)
print(json.dumps(said))
"""


def test_a_bundle_may_be_overwritten_in_place_while_it_is_used(path, tmp_path):
    used = shutil.copytree(path, tmp_path / "used")
    other = plain_bundle.build(tmp_path / "other", [TINY])
    # Not the installed runtime, which is opened from its own file: the bundle's.
    with open(runtime_file(Path(used)), "ab") as file:
        file.write(b"another build")
    signed(Path(used), runtime=manifest.RuntimeEntry(
        runtime_file(Path(used)).name, manifest.file_digest(runtime_file(Path(used)))
    ))  # fmt: skip
    assert "truncated or damaged" in in_new_process(OVERWRITTEN, used, other)


def mapped():
    with open("/proc/self/maps") as file:
        return sum("memfd:unmapped.so" in line for line in file)


def test_what_is_not_used_any_more_is_unmapped(tmp_path):
    path = plain_bundle.build(tmp_path / "kernels", [TINY], "unmapped")
    x, w, *_ = operands(TINY)
    first = load(path, threads=1)
    assert_right(TINY, first[TINY](x, w), x, w)
    once = mapped()
    assert load(path, threads=1).module.same_as(first.module)
    assert mapped() == once  # equal contents that are used are mapped once
    layer = first[TINY].bind(w)
    del first
    gc.collect()
    assert mapped() == once
    assert_right(TINY, layer(x), x, w)  # a layer alone keeps its code
    del layer
    gc.collect()
    assert mapped() == 0


RELOADED = """
import hashlib, json, sys
from pathlib import Path
import plain_bundle as b
from tvmconv.bundle.folder import File
from tvmconv.runtime import engine, load
path = Path(sys.argv[1])
load(path, threads=1)
file = next(path.glob("tests.so"))
def maps():
    return sum("memfd:tests.so" in line for line in open("/proc/self/maps"))
for number in range(5000):  # contents that differ at every time, under one path
    contents = file.read_bytes() + b"%d" % number
    engine.open_kernels(File(file, contents, hashlib.sha256(contents).hexdigest()))
print(json.dumps(maps()))
"""


def test_a_path_is_reloaded_with_new_contents_5000_times(path):
    assert in_new_process(RELOADED, path) == 0


def test_files_may_be_links_to_blobs_of_any_name(path, tmp_path):
    copy = Path(shutil.copytree(path, tmp_path / "copy"))
    (tmp_path / "blobs").mkdir()
    for number, file in enumerate(
        sorted(copy.iterdir())
    ):  # as Hugging Face's cache and DVC keep them
        os.rename(file, tmp_path / "blobs" / f"{number}f00d")
        file.symlink_to(tmp_path / "blobs" / f"{number}f00d")
    x, w, *_ = operands(TINY)
    assert_right(TINY, load(copy)[TINY](x, w), x, w)


def test_a_path_need_not_be_utf8(path, tmp_path):
    copy = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    shutil.copytree(path, copy)
    x, w, *_ = operands(TINY)
    assert_right(TINY, load(copy)[TINY](x, w), x, w)


WITHOUT_MEMFD = """
import errno, json, os, sys, tempfile
from pathlib import Path
def refused(*_):
    raise PermissionError(errno.EACCES, "no memory files here")
os.memfd_create = refused
import plain_bundle as b
import tvmconv
path = Path(sys.argv[1])
x, w, _, _ = b.operands(b.TINY)
layer = tvmconv.load(path, threads=1)[b.TINY].bind(w)
for file in path.iterdir():
    file.write_bytes(b"")
b.assert_right(b.TINY, layer(x), x, w)
print(json.dumps([os.listdir(tempfile.gettempdir()), "memfd" in open("/proc/self/maps").read()]))
"""


def test_where_there_are_no_files_in_memory_a_temporary_copy_is_mapped(path, tmp_path):
    copy = shutil.copytree(path, tmp_path / "copy")
    (tmp_path / "empty").mkdir()
    assert in_new_process(WITHOUT_MEMFD, copy, TMPDIR=str(tmp_path / "empty")) == [[], False]
