"""The manifest and the choice of a variant."""

import dataclasses
import json

import pytest
from plain_bundle import manifest

from tvmconv import errors
from tvmconv.bundle import manifest as bundle
from tvmconv.bundle import variants


def variant(machine="haswell", features=("avx2", "fma"), architecture="x86_64", **changes):
    fields = {
        "machine": machine,
        "architecture": architecture,
        "os": "linux",
        "library": bundle.library_name(machine),
        "sha256": "0" * 64,
        "features": features,
        "glibc": None,
        "runtime": bundle.RuntimeEntry(bundle.runtime_name(architecture), "1" * 64),
        "kernels": {
            "a": bundle.KernelEntry(
                "kernel_a",
                "direct",
                {"pixels": 7, "order": "weights_outer", "split": [1, 2.5, None]},
                "x86/conv2d.jsonl:3",
                bundle.PackEntry("pack_a", (2, 3, 8), "float32"),
            ),
            "b": bundle.KernelEntry(None, "empty", {}),
        },
    }
    return bundle.Variant(**{**fields, **changes})


def altered(directory, change, sign=True):
    """Change the manifest's JSON in place; ``sign`` makes its checksum fit again."""
    file = directory / bundle.MANIFEST_NAME
    body = json.loads(file.read_text())
    change(body)
    if sign:
        body["checksum"] = bundle._checksum(body)
    file.write_text(json.dumps(body))
    return directory


@pytest.fixture
def written(tmp_path):
    bundle.write_manifest(tmp_path, manifest(variant(), variant("generic", ())))
    return tmp_path


def test_a_manifest_comes_back_as_it_was_written(written):
    expected = manifest(variant(), variant("generic", ()))
    found = bundle.read_manifest(written)
    assert dataclasses.replace(found, created=expected.created) == expected
    assert found.variants[0].kernels["a"].pack.shape == (2, 3, 8)
    assert [entry.name for entry in written.iterdir()] == [bundle.MANIFEST_NAME]


def test_the_manifest_can_be_read_by_other_users(written):
    assert (written / bundle.MANIFEST_NAME).stat().st_mode & 0o777 == 0o644


def test_a_file_is_no_bundle(tmp_path):
    (tmp_path / "model.so").write_bytes(b"")
    with pytest.raises(errors.BundleError, match="is a file; a bundle is a directory"):
        bundle.read_manifest(tmp_path / "model.so")


def test_a_missing_path_is_no_bundle(tmp_path):
    with pytest.raises(errors.BundleError, match="does not exist"):
        bundle.read_manifest(tmp_path / "nothing")


def test_a_directory_without_manifest_is_no_bundle(tmp_path):
    with pytest.raises(errors.BundleError, match=r"holds no manifest\.json"):
        bundle.read_manifest(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99])
def test_a_truncated_manifest_is_refused(written, share):
    file = written / bundle.MANIFEST_NAME
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(errors.BundleError, match="truncated or damaged"):
        bundle.read_manifest(written)


def test_every_single_flipped_byte_of_the_manifest_is_noticed(written):
    file = written / bundle.MANIFEST_NAME
    data = file.read_bytes()
    intact = bundle.read_manifest(written)
    refused = 0
    for position in range(0, len(data), 7):
        file.write_bytes(data[:position] + bytes([data[position] ^ 0x11]) + data[position + 1 :])
        try:
            assert bundle.read_manifest(written) == intact  # white space between fields
        except errors.BundleError:
            refused += 1
    assert refused > len(data) / 7 / 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: body["variants"][0].pop("sha256"), "must have the fields"),
        (lambda body: body.update(surprise=1), "must have the fields"),
        (lambda body: body.update(keys="a"), "manifest.keys must be"),
        (lambda body: body["keys"].append(3), r"keys\[2\] must be str, found int"),
        (lambda body: body.update(variants=[]), "has no variant"),
        (lambda body: body["variants"][0].update(features=[1]), r"features\[0\] must be str"),
        (lambda body: body["variants"][0]["kernels"].pop("a"), "kernels of variant haswell"),
        (
            lambda body: body["variants"][0]["kernels"]["a"]["pack"].update(shape=[2, "3"]),
            r"shape\[1\] must be int, found str",
        ),
        (
            lambda body: body["variants"][0]["kernels"]["a"].update(symbol=7),
            "symbol must be str, found int",
        ),
        (lambda body: body["variants"][0].update(glibc="two"), "glibc of variant haswell is 'two'"),
        (lambda body: body["variants"][0].update(glibc="2." + "9" * 5000), "not like 2.28"),
        (
            lambda body: body["variants"][0]["kernels"]["a"].update(symbol="a\0b"),
            "is no name in C",
        ),
        (
            lambda body: body["variants"][0]["kernels"]["a"]["pack"].update(shape=[2, -3]),
            r"packed to \(2, -3\)",
        ),
        (
            lambda body: body["variants"][0]["kernels"]["a"]["pack"].update(dtype="object"),
            "packed as 'object'",
        ),
    ],
)
def test_fields_are_checked(written, change, message):
    with pytest.raises(errors.BundleError, match=message):
        bundle.read_manifest(altered(written, change))


@pytest.mark.parametrize("name", ["../evil.so", "/lib/evil.so", "", ".hidden"])
def test_a_manifest_cannot_name_files_outside_the_bundle(written, name):
    def change(body):
        body["variants"][0]["library"] = name

    with pytest.raises(errors.BundleError, match="not a plain file name"):
        bundle.read_manifest(altered(written, change))


@pytest.mark.parametrize("depth", [101, 990, 100_000])
def test_a_manifest_that_is_nested_too_deep_is_refused(written, depth):
    text = '{"format": 3, "keys": ' + "[" * depth + "]" * depth + "}"
    (written / bundle.MANIFEST_NAME).write_text(text)

    with pytest.raises(errors.BundleError, match="100 deep"):
        bundle.read_manifest(written)


def test_an_altered_manifest_is_noticed(written):
    def change(body):
        body["variants"][0]["features"] = []

    with pytest.raises(errors.BundleError, match="altered after it was built"):
        bundle.read_manifest(altered(written, change, sign=False))


def test_a_newer_format_says_what_to_install(written):
    altered(written, lambda body: body.update(format=bundle.FORMAT + 1, tvmconv="3.1", later=True))
    with pytest.raises(errors.BundleError, match=r"pip install 'tvmconv>=3\.1'"):
        bundle.read_manifest(written)


@pytest.mark.parametrize("text", ["[]", "3", '{"name": "package"}', '{"format": "1"}'])
def test_other_json_is_no_manifest(tmp_path, text):
    (tmp_path / bundle.MANIFEST_NAME).write_text(text)
    with pytest.raises(errors.BundleError, match="is no tvmconv manifest"):
        bundle.read_manifest(tmp_path)


def test_writing_checks_what_reading_would_refuse(tmp_path):
    wrong = manifest(variant(library="sub/folder.so"))
    with pytest.raises(errors.BundleError, match="plain file name"):
        bundle.write_manifest(tmp_path, wrong)
    assert list(tmp_path.iterdir()) == []


def test_the_first_variant_that_fits_is_chosen():
    best = variant("icelake", ("avx2", "avx512f"))
    choices = manifest(best, variant(), variant("generic", ()))
    assert variants.choose(choices, "x86_64", {"avx2", "fma", "avx512f"}) is best
    assert variants.choose(choices, "x86_64", {"avx2", "fma"}).machine == "haswell"
    assert variants.choose(choices, "x86_64", {"sse2"}).machine == "generic"


def test_no_variant_lists_what_is_missing_and_how_to_rebuild():
    choices = manifest(
        variant("icelake", ("avx2", "avx512f")), variant("pi4", (), "aarch64"), variant()
    )
    with pytest.raises(errors.IncompatibleMachineError) as caught:
        variants.choose(choices, "x86_64", {"avx2", "sse2"})
    text = str(caught.value)
    assert "icelake needs avx512f, which" in text
    assert "pi4 is for aarch64 linux, this process is x86_64 linux" in text
    assert "haswell needs fma, which" in text
    assert "tvmconv build WORKLOAD --machine host --output" in text


@pytest.mark.parametrize(
    ("needed", "here", "fits"),
    [(None, None, True), ("2.28", "2.28", True), ("2.9", "2.17", True), ("2.28", "2.27", False),
     ("2.28", None, False), ("2.28", "3.0", True)],
)  # fmt: skip
def test_a_variant_needs_its_glibc_or_a_newer_one(needed, here, fits):
    choices = manifest(variant("pi4", (), "aarch64", glibc=needed))
    if fits:
        assert variants.choose(choices, "aarch64", (), glibc=here).machine == "pi4"
        return
    has = f"glibc {here}" if here else "another C library"
    message = f"pi4 needs glibc {needed} or newer, this system has {has}"
    with pytest.raises(errors.IncompatibleMachineError, match=message):
        variants.choose(choices, "aarch64", (), glibc=here)


def test_a_variant_asked_for_must_exist_and_fit():
    choices = manifest(variant("icelake", ("avx512f",)), variant())
    features = {"avx2", "fma"}
    assert variants.choose(choices, "x86_64", features, machine="haswell").machine == "haswell"
    with pytest.raises(errors.IncompatibleMachineError, match="icelake needs avx512f"):
        variants.choose(choices, "x86_64", features, machine="icelake")
    with pytest.raises(errors.UnknownNameError, match="it has icelake, haswell"):
        variants.choose(choices, "x86_64", features, machine="zen4")


def test_a_variant_is_found_by_a_board_that_has_the_machine():
    core = dataclasses.replace(variant("a72", ()), also=("rpi4", "rk3399"))
    choices = manifest(variant("icelake", ()), core)
    for name in ("a72", "rpi4", "rk3399"):
        assert variants.choose(choices, "x86_64", (), machine=name) is core
    with pytest.raises(errors.UnknownNameError, match=r"it has icelake, a72 \(rpi4, rk3399\)"):
        variants.choose(choices, "x86_64", (), machine="rpi5")
