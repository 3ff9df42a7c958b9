"""Signs manifests, and checks who signed: a checksum proves that a bundle is whole, not whose it is.

The signature is Ed25519's (RFC 8032) over the bytes of ``manifest.json``, which lists the SHA-256 of
every file, and lies beside it as 64 bytes. OpenSSL checks it too::

    openssl pkeyutl -verify -pubin -inkey KEY.pub -rawin -in manifest.json -sigfile manifest.sig
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tvmconv import errors
from tvmconv.bundle.folder import File, Folder, read_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNATURE_NAME = "manifest.sig"
_MAKE = "tvmconv key --output KEYFILE"


def make_keys(path: Path) -> Path:
    """Write a new private key to ``path`` and return where its public key is: ``path`` with ``.pub``.

    Both are PEM files; the private one is its owner's alone to read. Raises SigningKeyError when one of
    them exists already, OSError when they cannot be written.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key, public = Ed25519PrivateKey.generate(), path.with_name(f"{path.name}.pub")
    pem = serialization.Encoding.PEM
    private_text = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_text = key.public_key().public_bytes(
        pem, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for file in (path, public):
        if os.path.lexists(file):
            raise errors.SigningKeyError(f"{file} exists, and a key is not overwritten")
    for file, text, mode in ((path, private_text, 0o600), (public, public_text, 0o644)):
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            out.write(text)
    return public


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a key that signs; SigningKeyError when the file holds none, or one with a password."""
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    text, key = _text(path), None
    with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = serialization.load_pem_private_key(text, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise errors.SigningKeyError(
            f"{path} holds no private Ed25519 key in PEM without a password; make one: {_MAKE}"
        )
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read a key that checks signatures; SigningKeyError when the file holds none."""
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    text, key = _text(path), None
    if b"PRIVATE KEY" in text:
        raise errors.SigningKeyError(
            f"{path} is a private key, which stays where bundles are built: give {path}.pub"
        )
    with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = serialization.load_pem_public_key(text)
    if not isinstance(key, Ed25519PublicKey):
        raise errors.SigningKeyError(
            f"{path} holds no public Ed25519 key in PEM; the .pub file of {_MAKE} is one"
        )
    return key


def sign(contents: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return the signature of a manifest's bytes: 64 bytes."""
    signed: bytes = key.sign(contents)
    return signed


def of(folder: Folder) -> bytes | None:
    """Return a bundle's signature, None where there is none; BundleError when it cannot be read."""
    try:
        return folder.read(SIGNATURE_NAME).contents
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.BundleError(
            f"{folder.path / SIGNATURE_NAME} cannot be read: {error}"
        ) from error


def check(manifest: File, signature: bytes | None, trusted: Sequence[Path]) -> None:
    """Raise UntrustedBundleError unless one of the public keys in ``trusted`` signed the manifest.

    Raises SigningKeyError for a file that holds no such key, MissingToolError without the library.
    """
    keys = [read_public_key(path) for path in trusted]
    from cryptography.exceptions import InvalidSignature

    if signature is None:
        raise errors.UntrustedBundleError(
            f"{manifest.path.parent} is not signed; build it with: tvmconv build ... --sign KEYFILE"
        )
    for key in keys:
        with contextlib.suppress(InvalidSignature):
            key.verify(signature, manifest.contents)
            return
    raise errors.UntrustedBundleError(
        f"{manifest.path} was not signed by {' or '.join(map(str, trusted))}, or was altered since; load "
        "nothing of it, and get the bundle again from who built it"
    )


def _text(path: Path) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        raise errors.SigningKeyError(
            f"key file {path} cannot be read: {error.strerror or error}"
        ) from error


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise errors.MissingToolError(
            "signatures need the package cryptography, which is not installed; run: "
            "pip install 'tvmconv[signing]'"
        ) from error
