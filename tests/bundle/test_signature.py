"""Signatures: a bundle is loaded by who trusts its maker's key, and by nobody else who asks."""

import json
import shutil
import subprocess
import sys

import pytest
from plain_bundle import TINY, assert_right, operands
from runtime_calls import shared_bundle

from tvmconv import errors
from tvmconv.bundle import manifest, publishing, signature
from tvmconv.runtime import load


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    private = tmp_path_factory.mktemp("keys") / "maker"
    return private, signature.make_keys(private)


@pytest.fixture
def signed(tmp_path, keys):
    copy = tmp_path / "copy"
    shutil.copytree(shared_bundle(), copy)
    contents = (copy / manifest.MANIFEST_NAME).read_bytes()
    made = signature.sign(contents, signature.read_private_key(keys[0]))
    (copy / signature.SIGNATURE_NAME).write_bytes(made)
    return copy


@pytest.fixture
def stranger(tmp_path):
    return signature.make_keys(tmp_path / "stranger")


def test_a_signed_bundle_is_loaded_by_who_trusts_its_key(signed, keys, stranger):
    x, w, *_ = operands(TINY)
    for trusted in (keys[1], [str(stranger), keys[1]]):
        assert_right(TINY, load(signed, trusted=trusted)[TINY](x, w), x, w)


def test_a_bundle_of_another_maker_is_refused(signed, stranger):
    with pytest.raises(errors.UntrustedBundleError, match=r"was not signed by .*stranger\.pub"):
        load(signed, trusted=stranger)


def test_a_bundle_without_signature_is_refused(keys):
    with pytest.raises(errors.UntrustedBundleError, match=r"is not signed; build it with.*--sign"):
        load(shared_bundle(), trusted=keys[1])


def test_a_manifest_that_was_altered_with_its_checksum_is_refused(signed, keys):
    file = signed / manifest.MANIFEST_NAME
    body = json.loads(file.read_text())
    body["variants"][0]["features"] = []
    body["checksum"] = manifest._checksum(body)
    file.write_text(json.dumps(body))
    assert load(signed)
    with pytest.raises(errors.UntrustedBundleError, match="or was altered since"):
        load(signed, trusted=keys[1])


def test_a_library_that_was_altered_is_refused(signed, keys):
    with open(signed / "tests.so", "ab") as file:
        file.write(b"x")
    with pytest.raises(errors.BundleError, match="truncated or altered"):
        load(signed, trusted=keys[1])


def test_a_torn_signature_is_refused(signed, keys):
    (signed / signature.SIGNATURE_NAME).write_bytes(b"short")
    with pytest.raises(errors.UntrustedBundleError, match="was not signed by"):
        load(signed, trusted=keys[1])


def test_keys_of_the_wrong_kind_are_told(signed, keys, tmp_path):
    (tmp_path / "text").write_text("no key")
    for trusted, message in (
        (keys[0], "is a private key, which stays"),
        (tmp_path / "text", "holds no public Ed25519 key"),
        (tmp_path / "nothing", "cannot be read: No such file"),
    ):
        with pytest.raises(errors.SigningKeyError, match=message):
            load(signed, trusted=trusted)
    with pytest.raises(errors.SigningKeyError, match="holds no private Ed25519 key"):
        signature.read_private_key(keys[1])
    with pytest.raises(ValueError, match="trusted is empty"):
        load(signed, trusted=[])


def test_keys_are_not_overwritten_and_are_private(keys):
    assert keys[0].stat().st_mode & 0o777 == 0o600
    with pytest.raises(errors.SigningKeyError, match="a key is not overwritten"):
        signature.make_keys(keys[0])


def test_a_signature_is_published_with_its_bundle(signed, keys, tmp_path):
    assert load(publishing.install(signed, tmp_path / "live"), trusted=keys[1])
    assert load(publishing.install(signed, tmp_path / "live"), trusted=keys[1])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs OpenSSL's program")
def test_openssl_agrees(signed, keys):
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", keys[1], "-rawin"]
    files = ["-in", signed / "manifest.json", "-sigfile", signed / "manifest.sig"]
    done = subprocess.run([*command, *files], capture_output=True, text=True)
    assert "Verified Successfully" in done.stdout, done.stderr


def test_without_the_library_the_error_says_what_to_install(signed, keys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(errors.MissingToolError, match=r"pip install 'tvmconv\[signing\]'"):
        load(signed, trusted=keys[1])
