"""Puts a finished bundle where its users find it, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from tvmconv import errors
from tvmconv.bundle.manifest import LIBRARY_SUFFIX, MANIFEST_NAME, WEIGHTS_SUFFIX, read_manifest


def publish(staging: str | os.PathLike[str], output: str | os.PathLike[str]) -> Path:
    """Move the finished bundle ``staging`` to ``output``, replacing a bundle that is there.

    A reader finds the old bundle or the new one, never a mixture; libraries that a process has open
    stay valid. ``staging`` must be on the same file system, best a sibling of ``output``.
    Raises BundleError, and changes nothing, when ``output`` exists and is not a bundle.
    """
    # Behind a symbolic link such as "current", its target is replaced and the link stays.
    target = Path(os.path.realpath(output))
    read_manifest(staging)
    if os.path.lexists(target) and not _replaceable(target):
        raise errors.BundleError(
            f"{target} exists and is not only a bundle, so it is not overwritten; "
            "remove it or give another --output"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-old-"))
    old = aside / "bundle"
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(staging, target)
    except OSError as error:
        if old.exists():
            os.replace(old, target)
        aside.rmdir()
        if error.errno != errno.EXDEV:
            raise
        raise errors.BundleError(
            f"{staging} and {target} are on different file systems; stage the bundle in "
            f"{target.parent}"
        ) from error
    shutil.rmtree(aside, ignore_errors=True)
    return target


def _replaceable(target: Path) -> bool:
    """Tell whether ``target`` holds a bundle, or nothing, and no file of the user's own.

    A damaged bundle passes too, since building it again is how one mends it.
    """
    if not target.is_dir():
        return False
    names = [entry.name for entry in target.iterdir()]
    if not names:
        return True
    if any(
        name != MANIFEST_NAME and not name.endswith((LIBRARY_SUFFIX, WEIGHTS_SUFFIX))
        for name in names
    ):
        return False
    try:
        with open(target / MANIFEST_NAME, "rb") as file:
            return b'"tvmconv"' in file.read(1024)  # one of the first fields in the file
    except OSError:
        return False
