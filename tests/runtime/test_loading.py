"""Loading checks everything first, and shares one runtime with all that is in the process."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import plain_bundle
import pytest
from plain_bundle import (
    EMPTY,
    PACKED,
    SPECS,
    TINY,
    assert_right,
    library_file,
    operands,
    runtime_file,
    signed,
)
from runtime_calls import in_new_process, shared_bundle

from tvmconv import errors
from tvmconv.bundle import manifest, publishing
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import Library, engine, load


@pytest.fixture(scope="module")
def path():
    return shared_bundle()


@pytest.fixture(scope="module")
def library(path):
    return load(path)


@pytest.fixture
def copied(path, tmp_path, monkeypatch):
    """A bundle to damage; opening any of its libraries fails the test."""

    def opened(*_):
        pytest.fail("a library was opened before everything was checked")

    monkeypatch.setattr(engine, "open_runtime", opened)
    monkeypatch.setattr(engine, "open_kernels", opened)
    return Path(shutil.copytree(path, tmp_path / "copy"))


def test_a_library_is_a_mapping(library):
    assert isinstance(library, Library)
    assert set(library) == {spec.key for spec in SPECS}
    assert len(library) == len(SPECS)
    assert PACKED.key in library
    assert PACKED in library
    assert library[PACKED] is library[PACKED.key]
    assert library.get("nothing") is None
    assert "10 kernels for tests" in repr(library)


def test_an_unknown_key_lists_the_nearest(library):
    other = ConvSpec.conv2d((1, 6, 5, 4), (3, 3, 4, 12), bias=True)
    with pytest.raises(KeyError) as caught:
        library[other]
    assert isinstance(caught.value, errors.UnknownNameError)
    text = str(caught.value)
    assert f"has no kernel {other.key}; the nearest of its 10: {PACKED.key}," in text
    assert f"tvmconv build {other.key} --machine tests" in text


@pytest.mark.parametrize("which", [library_file, runtime_file])
@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_a_truncated_library_is_noticed(copied, which, share):
    file = which(copied)
    os.truncate(file, int(file.stat().st_size * share))
    with pytest.raises(errors.BundleError, match=f"{file.name} is truncated or altered"):
        load(copied)


@pytest.mark.parametrize("which", [library_file, runtime_file])
def test_a_flipped_byte_is_noticed(copied, which):
    data = bytearray(which(copied).read_bytes())
    data[len(data) // 2] ^= 1
    which(copied).write_bytes(data)
    with pytest.raises(errors.BundleError, match="is truncated or altered"):
        load(copied)


@pytest.mark.parametrize("which", [library_file, runtime_file])
def test_a_missing_file_is_noticed(copied, which):
    which(copied).unlink()
    with pytest.raises(errors.BundleError, match="copy the whole directory again"):
        load(copied)


def test_a_damaged_or_newer_manifest_is_noticed(copied):
    file = copied / manifest.MANIFEST_NAME
    body = json.loads(file.read_text())
    file.write_text(json.dumps({**body, "format": manifest.FORMAT + 1}))
    with pytest.raises(errors.BundleError, match="pip install 'tvmconv>="):
        load(copied)
    os.truncate(file, 300)
    with pytest.raises(errors.BundleError, match="truncated or damaged"):
        load(copied)
    file.unlink()
    with pytest.raises(errors.BundleError, match="holds no manifest"):
        load(copied)


def test_another_architecture_is_refused(copied):
    signed(copied, architecture="riscv64")
    with pytest.raises(errors.IncompatibleMachineError, match="tests is for riscv64 linux"):
        load(copied)


def test_too_old_a_glibc_is_refused(copied):
    signed(copied, glibc="9.99")
    with pytest.raises(errors.IncompatibleMachineError, match=r"tests needs glibc 9\.99 or newer"):
        load(copied)


def test_features_that_the_cpu_lacks_are_listed(copied):
    signed(copied, features=("avx9000", "fma5"))
    with pytest.raises(errors.IncompatibleMachineError, match="needs avx9000, fma5, which this"):
        load(copied)


def test_a_variant_must_exist(copied):
    with pytest.raises(errors.UnknownNameError, match="no variant 'zen9'; it has tests"):
        load(copied, machine="zen9")


def test_keys_of_a_later_version_are_refused(copied):
    found = manifest.read_manifest(copied)
    variant = dataclasses.replace(
        found.variants[0], kernels={"conv3d_1": next(iter(found.variants[0].kernels.values()))}
    )
    manifest.write_manifest(
        copied, dataclasses.replace(found, keys=("conv3d_1",), variants=(variant,))
    )
    with pytest.raises(errors.BundleError, match=r"conv3d_1.* pip install 'tvmconv>="):
        load(copied)


def test_a_library_that_lacks_a_function_is_refused(path, tmp_path):
    copy = Path(shutil.copytree(path, tmp_path / "copy"))
    kernels = dict(manifest.read_manifest(copy).variants[0].kernels)
    kernels[TINY.key] = dataclasses.replace(kernels[TINY.key], symbol="nobody")
    signed(copy, kernels=kernels)
    with pytest.raises(errors.BundleError, match="no function nobody"):
        load(copy)[TINY]


def test_a_library_that_cannot_be_opened_is_a_bundle_error(path, tmp_path):
    copy = Path(shutil.copytree(path, tmp_path / "copy"))
    library_file(copy).write_bytes(b"not a library")
    signed(copy, sha256=manifest.file_digest(library_file(copy)))
    with pytest.raises(errors.BundleError, match="cannot be opened"):
        load(copy)


def test_a_rebuilt_bundle_replaces_the_old_one_in_the_same_process(path, tmp_path):
    output = Path(shutil.copytree(path, tmp_path / "kernels"))
    old = load(output)
    x, w, bias, _ = operands(PACKED)
    layer = old[PACKED].bind(w, bias)
    rebuilt = ConvSpec.conv2d(PACKED.input_shape, PACKED.filter_shape, bias=True)  # no activation
    staging = plain_bundle.build(tmp_path / "staging", [rebuilt])
    publishing.publish(staging, output)
    new = load(output)
    assert list(new) == [rebuilt.key]
    assert_right(rebuilt, new[rebuilt](x, w, bias), x, w, bias)
    assert_right(PACKED, layer(x), x, w, bias)  # what was loaded stays usable


JUNK = (None, True, -1, 2**70, 1.5, "", "x", "\0", "caf\u00e9", "../x", [], {}, [None], "9" * 5000)


def leaves(value, where=()):
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(each, (*where, key))
    yield where


def test_no_field_of_a_manifest_can_do_harm(path, tmp_path):
    """Every field, with each piece of junk and a checksum that fits: right results, or an error of ours."""
    copy = Path(shutil.copytree(path, tmp_path / "copy"))
    file = copy / manifest.MANIFEST_NAME
    whole = json.loads(file.read_text())
    keep = (TINY.key, EMPTY.key)
    whole["keys"] = [key for key in whole["keys"] if key in keep]
    kernels = whole["variants"][0]["kernels"]
    whole["variants"][0]["kernels"] = {key: kernels[key] for key in whole["keys"]}
    x, w, *_ = operands(TINY)
    for where in list(leaves(whole)):
        if not where or where == ("checksum",):
            continue
        for junk in JUNK:
            body = json.loads(json.dumps(whole))
            inner = body
            for key in where[:-1]:
                inner = inner[key]
            inner[where[-1]] = junk
            body["checksum"] = manifest._checksum(body)
            file.write_text(json.dumps(body))
            try:
                library = load(copy, threads=1)
                for key in library:
                    if key == TINY.key:
                        assert_right(TINY, library[key](x, w), x, w)
            # The last comes from the compiled function, which checks its arguments.
            except (errors.BundleError, errors.UnknownNameError, ValueError):
                pass


def test_a_kernel_without_a_function_is_refused(copied):
    kernels = dict(manifest.read_manifest(copied).variants[0].kernels)
    kernels[TINY.key] = dataclasses.replace(kernels[TINY.key], symbol=None)
    signed(copied, kernels=kernels)
    with pytest.raises(errors.BundleError, match=f"names no function for {TINY.key}"):
        load(copied)


ORDERS = """
import json, sys
import plain_bundle as b
def use(path):
    import tvmconv
    x, w, _, _ = b.operands(b.LARGE)
    b.assert_right(b.LARGE, tvmconv.load(path, threads=2)[b.LARGE](x, w), x, w)
def compile():
    import tvm
    from tvm import te
    a = te.placeholder((4,))
    tvm.compile(te.create_prim_func([a, te.compute((4,), lambda i: a[i] + 1)]), {"kind": "llvm"})
for step in sys.argv[1:]:
    compile() if step == "tvm" else use(step)
maps = {line.split()[5] for line in open("/proc/self/maps") if "libtvm_runtime" in line}
print(json.dumps(sorted(name for name in maps if "_extra" not in name)))
"""


@pytest.mark.parametrize("order", ["load, tvm", "tvm, load", "load, load", "load, tvm, load"])
def test_one_runtime_serves_tvm_and_all_bundles(path, tmp_path, order):
    other = shutil.copytree(path, tmp_path / "other")
    bundles = iter([path, other])
    steps = ["tvm" if step == "tvm" else next(bundles) for step in order.split(", ")]
    assert len(in_new_process(ORDERS, *steps)) == 1


def test_another_tvm_installed_is_warned_of(path, tmp_path):
    copy = Path(shutil.copytree(path, tmp_path / "copy"))
    with open(runtime_file(copy), "ab") as file:
        file.write(b"another build")
    digest = manifest.file_digest(runtime_file(copy))
    signed(copy, runtime=manifest.RuntimeEntry(runtime_file(copy).name, digest))
    code = (
        "import json, sys, warnings\n"
        "import tvmconv\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    tvmconv.load(sys.argv[1])\n"
        "maps = {l.split()[5] for l in open('/proc/self/maps') if 'libtvm_runtime' in l}\n"
        "print(json.dumps([sorted(maps), [str(w.message) for w in caught]]))"
    )
    libraries, messages = in_new_process(code, copy)
    assert libraries == [f"/memfd:{runtime_file(copy).name}"]  # a copy that no file changes
    assert "import tvm before loading the bundle" in messages[0]


def test_importing_and_loading_pull_in_little(path):
    code = (
        "import json, sys\n"
        "import tvmconv\n"
        "heavy = {'numpy', 'tvm', 'tvm_ffi'}\n"
        "first = sorted(heavy & set(sys.modules))\n"
        "tvmconv.ConvSpec\n"
        "second = sorted(heavy & set(sys.modules))\n"
        "tvmconv.load(sys.argv[1])\n"
        "print(json.dumps([first, second, sorted(heavy & set(sys.modules))]))"
    )
    assert in_new_process(code, path) == [[], [], ["numpy"]]


def test_an_unknown_public_name_is_an_attribute_error():
    import tvmconv

    with pytest.raises(AttributeError, match="no attribute 'convolve'; it has"):
        tvmconv.convolve  # noqa: B018
    assert set(tvmconv.__all__) <= set(dir(tvmconv))
