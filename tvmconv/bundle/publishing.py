"""Puts a finished bundle where its users find it, whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from tvmconv import errors
from tvmconv.bundle.folder import read_file
from tvmconv.bundle.manifest import (
    MANIFEST_NAME,
    manifest_file,
    open_folder,
    parse_manifest,
    read_manifest,
)
from tvmconv.bundle.reading import OLD, read_files, read_weights
from tvmconv.bundle.signature import SIGNATURE_NAME

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of <fcntl.h> and <linux/fs.h>
# What the system or the file system says that cannot exchange: NFS, some of FUSE, layers of an image.
_NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV}
_FILE_FIELD = re.compile(rb'"(?:library|file|weights)"\s*:\s*"([^"\\/]+)"')


def publish(staging: str | os.PathLike[str], output: str | os.PathLike[str]) -> Path:
    """Move the finished bundle ``staging`` to ``output``, replacing a bundle that is there.

    The two are exchanged, so that a reader finds the old bundle or the new one at any time, also after
    this process was killed. Where the file system cannot exchange, it takes two renames, between which
    `reading.read` waits and a killed process leaves the old bundle in a hidden folder beside.
    ``staging`` must be on the same file system, best a sibling of ``output``. Raises BundleError, and
    changes nothing, when ``output`` exists and holds anything that no manifest of a bundle there lists.
    """
    # Behind a symbolic link such as "current", its target is replaced and the link stays.
    target = Path(os.path.realpath(output))
    manifest = read_manifest(staging)
    names = {name for variant in manifest.variants for name, _ in variant.files}
    require_replaceable(target, names)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not _is_new(staging, target):
            require_replaceable(target, names)  # again: it may have come only now
            if _exchange(staging, target):
                shutil.rmtree(staging, ignore_errors=True)
            else:
                _replace_in_two(Path(staging), target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise errors.BundleError(
            f"{target} cannot be exchanged for {staging}: they are on different file systems, or the former "
            "belongs to a container's image; stage the bundle in the same folder, or remove the old one first"
        ) from error
    return target


def install(source: str | os.PathLike[str], output: str | os.PathLike[str]) -> Path:
    """Check every file of the bundle ``source``, and publish a copy of it as ``output``.

    Raises BundleError as `publish` does, and when a file of ``source`` is missing or altered.
    """
    target = Path(os.path.realpath(output))
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        open_folder(source) as folder,
        tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch,
    ):
        file = manifest_file(folder)
        manifest = parse_manifest(file)
        staging = Path(scratch) / "bundle"
        staging.mkdir(mode=0o755)
        for variant in manifest.variants:
            for name, found in read_files(folder, variant).items():
                (staging / name).write_bytes(found.contents)
            weights = read_weights(folder, variant)
            if weights is not None:
                (staging / weights.path.name).write_bytes(weights.contents)
        (staging / MANIFEST_NAME).write_bytes(file.contents)
        if os.path.lexists(folder.path / SIGNATURE_NAME):
            (staging / SIGNATURE_NAME).write_bytes(folder.read(SIGNATURE_NAME).contents)
        return publish(staging, target)


def require_replaceable(target: Path, new: Collection[str]) -> None:
    """Raise BundleError unless ``target`` is missing, empty, or holds a bundle's files and no others.

    A damaged bundle passes too, since building it again is how one mends it; where its manifest cannot be
    read to the end, ``new``, the names of the new bundle's files, count as its own.
    """
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise errors.BundleError(f"{target} exists and is no bundle, so it is not overwritten")
    own = _own_files(target, new)
    others = sorted(
        entry.name
        for entry in os.scandir(target)
        if entry.name not in own or entry.is_dir(follow_symlinks=False)
    )
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise errors.BundleError(
            f"{target} exists and is not only a bundle, so it is not overwritten: no manifest of a bundle "
            f"there lists {', '.join(others[:3])}{more}. Remove that, or give another --output"
        )


def _own_files(target: Path, new: Collection[str]) -> set[str]:
    """The names of the files that a manifest in ``target`` says are the bundle's, its own included."""
    try:
        text = read_file(target / MANIFEST_NAME)
    except OSError:
        return set()
    own = {MANIFEST_NAME, SIGNATURE_NAME}
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        if b'"tvmconv"' not in text[:1024]:  # one of the first fields
            return set()
        listed = {os.fsdecode(name) for name in _FILE_FIELD.findall(text)}
        return own | listed | set(new)
    if not isinstance(body, dict) or "tvmconv" not in body or "variants" not in body:
        return set()
    return own | set(_names(body["variants"]))


def _names(value: Any) -> Iterator[str]:
    """The files in a manifest of any format, whose fields for them are called so."""
    if isinstance(value, list):
        for each in value:
            yield from _names(each)
    if isinstance(value, dict):
        for field, each in value.items():
            if field in ("library", "file", "weights") and isinstance(each, str):
                yield each
            elif field != "kernels":
                yield from _names(each)


def _is_new(staging: str | os.PathLike[str], target: Path) -> bool:
    """Move ``staging`` to ``target`` unless something is there; tells whether it was moved."""
    if target.exists():
        return False
    try:
        os.rename(staging, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _exchange(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Give two paths each other's contents at once; False, with nothing changed, where that is unknown."""
    library = ctypes.CDLL(None, use_errno=True)
    try:
        renameat2 = library.renameat2
    except AttributeError:  # glibc before 2.28
        return False
    paths = os.fsencode(one), os.fsencode(other)
    if renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), os.fspath(other))


def _replace_in_two(staging: Path, target: Path) -> None:
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}{OLD}"))
    old = aside / "bundle"
    try:
        os.rename(target, old)
    except OSError:
        aside.rmdir()
        raise
    try:
        os.rename(staging, target)
    except OSError:
        os.rename(old, target)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)
