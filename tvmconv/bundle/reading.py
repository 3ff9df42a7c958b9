"""Reads what is needed of a bundle, all of it of one build, also while another build takes its place."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tvmconv import errors
from tvmconv.bundle import signature
from tvmconv.bundle.background import Background
from tvmconv.bundle.folder import AlignedFile, File, Folder
from tvmconv.bundle.manifest import (
    Manifest,
    Variant,
    manifest_file,
    open_folder,
    parse_manifest,
    remake,
)

OLD = "-old-"  # in the name of the folder beside a bundle where the replaced one waits for its end
_TRIES = 100
_PAUSE = 0.01  # seconds: 100 of them are far more than two renames take


@dataclasses.dataclass(frozen=True)
class Contents:
    """A manifest, the variant that was chosen from it, that variant's files by name, a model's weights."""

    manifest: Manifest
    variant: Variant
    files: dict[str, File]
    weights: AlignedFile | None = None


def read(
    path: Path,
    choose: Callable[[Manifest], Variant],
    trusted: Sequence[Path] = (),
    meanwhile: Callable[[Variant], None] = lambda _variant: None,
) -> Contents:
    """Read the manifest and the files of the variant that ``choose`` takes from it.

    ``trusted`` are public keys, one of which must have signed the manifest; none: nothing is asked.
    ``meanwhile`` is called while another thread checks the weights: by SHA-256 where a key is trusted, which
    takes 8 ms for 14 MB, else by CRC-32 in 3.
    Raises BundleError as `read_manifest` and `read_files` do, UntrustedBundleError as
    `signature.check`, and what ``choose`` raises.
    """
    for _ in range(_TRIES):
        try:
            folder = open_folder(path)
        except errors.BundleError:
            if not _is_between_renames(path):
                raise
            time.sleep(_PAUSE)
            continue
        with folder:
            file = None
            try:
                file = manifest_file(folder)
                if trusted:
                    signature.check(file, signature.of(folder), trusted)
                manifest = parse_manifest(file)
                variant = choose(manifest)
                weights = Background(
                    functools.partial(read_weights, folder, variant, bool(trusted))
                )
                with weights:  # not left behind, also when the rest fails
                    files = read_files(folder, variant)
                    meanwhile(variant)
                return Contents(manifest, variant, files, weights.result())
            except errors.BundleError:
                if not _has_changed(folder, file):
                    raise
    raise errors.BundleError(
        f"{path} was replaced {_TRIES} times while it was read, or never put back; see what writes there"
    )


def read_files(folder: Folder, variant: Variant) -> dict[str, File]:
    """Read the files of ``variant`` but its weights, and check that they are exactly those that were built.

    Raises BundleError when its kernel library or runtime is missing or has another SHA-256.
    """
    weights = variant.program.weights if variant.program else None
    files = ((name, expected) for name, expected in variant.files if name != weights)
    again = remake(variant.program is not None)
    return {name: _checked_file(folder, name, expected, again) for name, expected in files}


def read_weights(folder: Folder, variant: Variant, by_digest: bool = True) -> AlignedFile | None:
    """Read the packed weights of a model, checked as `read_files` checks; None for a bundle of kernels.

    Without ``by_digest`` by their CRC-32, which finds damage as well and takes a quarter of the time: 14 MB
    in 2 ms. Only a signature makes use of more, since nobody else's manifest can be trusted either.
    """
    program = variant.program
    if program is None:
        return None
    again = remake(True)
    with _naming_what_is_missing(folder, program.weights, again):
        found = folder.read_aligned(program.weights)
    if by_digest:
        digest = hashlib.sha256(found.contents).hexdigest()
        _require_same(found.path, "SHA-256", digest, program.sha256, again)
    else:
        _require_same(found.path, "CRC-32", zlib.crc32(found.contents), program.crc32, again)
    return found


def _checked_file(folder: Folder, name: str, expected: str, again: str) -> File:
    with _naming_what_is_missing(folder, name, again):
        found = folder.read(name)
    _require_same(found.path, "SHA-256", found.sha256, expected, again)
    return found


@contextlib.contextmanager
def _naming_what_is_missing(folder: Folder, name: str, again: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.BundleError(
            f"{folder.path / name}, which the manifest names, cannot be read "
            f"({error.strerror or error}); copy the whole directory again, or: {again}"
        ) from error


def _require_same(path: Path, what: str, found: object, expected: object, again: str) -> None:
    if found != expected:
        raise errors.BundleError(
            f"{path} is truncated or altered: its {what} is {found}, the manifest says {expected}; "
            f"copy the bundle again, or: {again}"
        )


def _has_changed(folder: Folder, manifest: File | None) -> bool:
    """Whether another build has come to the folder's path, or into the folder itself."""
    if folder.is_replaced():
        return True
    try:
        now = manifest_file(folder)
    except errors.BundleError:
        return False
    return manifest is not None and now.sha256 != manifest.sha256


def _is_between_renames(path: Path) -> bool:
    """Whether a bundle was missing because it is replaced on a file system without an exchange."""
    try:
        names = os.listdir(path.absolute().parent)
    except OSError:
        return False
    aside = any(name.startswith(f".{path.name}{OLD}") for name in names)
    # In this order: what is put back is removed from beside only then.
    return aside or (os.access(path, os.R_OK | os.X_OK) and path.is_dir())
