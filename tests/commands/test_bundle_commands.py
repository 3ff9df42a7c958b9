"""``tvmconv build``, ``verify`` and ``inspect``: what they print, how they exit, and mistakes."""

import dataclasses
import json
import subprocess
import sys

import pytest
from invoking import DEPTHWISE, PLAIN, RELU, SPECS, record_for

from tvmconv import hardware
from tvmconv.building import toolchain
from tvmconv.bundle import manifest as bundle
from tvmconv.commands import verify
from tvmconv.hardware import host
from tvmconv.records import log

pytestmark = pytest.mark.usefixtures("user_records")
pytest_plugins = ("bundle_fixtures",)

# build


def test_build_says_what_came_of_it(invoke, tmp_path):
    path = tmp_path / "b.tvmconv"
    code, out, err = invoke("build", DEPTHWISE.key, "--machine", "host", "--output", path)
    assert code == 0
    assert f"{path}: 1 kernels" in out
    assert "0 from tuning records, 1 with default decisions, 0 with nothing to compute" in out
    assert f"tvmconv verify {path}" in out
    assert "compiling 1 kernels" in err


def test_build_takes_records_and_several_machines(invoke, tmp_path):
    name = hardware.detect().name
    other = next(
        machine.name for pack in hardware.working_packs()[0] for machine in pack.machines
        if machine.name != name and machine.architecture == host.architecture() and not machine.gpu
    )  # fmt: skip
    log.write(tmp_path / "logs", [record_for(PLAIN)])
    code, out, err = invoke(
        "build", PLAIN.key, "--machine", f"{name},{other}", "--output", tmp_path / "b.tvmconv",
        "--logs", tmp_path / "logs", "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["bytes"] == sum(f.stat().st_size for f in (tmp_path / "b.tvmconv").iterdir())
    counts = {variant["machine"]: variant for variant in found["variants"]}
    assert counts[name] == {"machine": name, "tuned": 1, "default": 0, "empty": 0}
    assert counts[other]["tuned"] == 0


MISTAKES = {
    "workload": (["mobilnet_v2"], {}, 2, "Did you mean mobilenet_v2"),
    "key": (["conv2d_1x2"], {}, 2, "not the key of a convolution"),
    "machine": ([PLAIN.key], {"--machine": "sapphirerapid"}, 2, "Did you mean sapphirerapids"),
    "logs": ([PLAIN.key], {"--logs": "nowhere"}, 2, "--logs nowhere is not a directory"),
    "output": ([PLAIN.key], {"--output": "full"}, 1, "full exists and is not only a bundle"),
    "permission": ([PLAIN.key], {"--output": "/proc/b.tvmconv"}, 1, "/proc/"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_build_says_what_is_wrong(mistake, invoke, tmp_path, monkeypatch):
    positional, options, expected, message = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    options = {"--output": "b.tvmconv", **options}
    code, out, err = invoke(
        "build", *positional, *(word for pair in options.items() for word in pair)
    )
    assert code == expected
    assert out == ""
    assert message in err
    assert err.splitlines()[-1].startswith("error: ")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "thesis.txt"]


def test_build_without_tvm_says_how_to_get_it(invoke, tmp_path, monkeypatch):
    missing = toolchain.Check("apache-tvm", False, "not installed", "build", "pip install it")
    monkeypatch.setattr(toolchain, "check_tvm", lambda: missing)
    code, _, err = invoke("build", PLAIN.key, "--output", tmp_path / "b.tvmconv")
    assert code == 1
    assert "apache-tvm is needed for build, found: not installed. To mend it: pip install it" in err


# verify


def test_verify_passes_a_sound_bundle(invoke, built):
    code, out, err = invoke("verify", built, "--threads", 1)
    assert (code, out) == (
        0,
        f"4 of 4 kernels for {hardware.detect().name} are right with 1 threads\n",
    )
    assert all(spec.key in err for spec in SPECS)
    assert all(spec.key in invoke("verify", built, "--verbose")[1] for spec in SPECS)


def test_verify_finds_a_wrong_kernel(invoke, copied):
    manifest = bundle.read_manifest(copied)
    (variant,) = manifest.variants
    kernels = {**variant.kernels, RELU.key: variant.kernels[PLAIN.key]}  # forgets the activation
    variant = dataclasses.replace(variant, kernels=kernels)
    bundle.write_manifest(copied, dataclasses.replace(manifest, variants=(variant,)))
    code, out, _ = invoke("verify", copied)
    assert code == 1
    assert f"{RELU.key}: " in out
    assert "values are wrong; the worst, at" in out
    assert f"{PLAIN.key}: " not in out
    assert "3 of 4 kernels" in out
    code, out, err = invoke("verify", copied, "--json")
    failures = {kernel["key"]: kernel["failure"] for kernel in json.loads(out)["kernels"]}
    assert (code, err) == (1, "")
    assert [key for key, failure in failures.items() if failure] == [RELU.key]


def test_verify_misaligns_every_array(built):
    from tvmconv import runtime

    kernel = runtime.load(built)[DEPTHWISE]
    calls = []

    class Spy:
        spec, schedule, signature = kernel.spec, kernel.schedule, kernel.signature

        def __call__(self, **arrays):
            calls.append({k: a.ctypes.data % 64 for k, a in arrays.items() if a is not None})
            return kernel(**arrays)

    result = verify.check(Spy())
    assert result.failure is None
    assert 0 < result.error < result.allowed
    assert calls[1] == dict.fromkeys(("x", "w", "bias", "residual", "out"), 4)


@pytest.mark.parametrize(
    ("arguments", "expected", "message"),
    [
        (["nowhere"], 1, "nowhere does not exist; a bundle is a directory made by"),
        (["{folder}"], 1, "holds no manifest.json, so it is no bundle"),
        (["{bundle}", "--machine", "acme"], 2, "the bundle has no variant 'acme'"),
        (["{bundle}", "--threads", "0"], 2, "threads must be at least 1"),
    ],
)
def test_verify_says_what_is_wrong(arguments, expected, message, invoke, built, tmp_path):
    given = [text.format(folder=tmp_path, bundle=built) for text in arguments]
    code, out, err = invoke("verify", *given)
    assert (code, out) == (expected, "")
    assert err.startswith("error: ")
    assert message in err


# inspect


def test_inspect_shows_the_manifest(invoke, built):
    code, out, _ = invoke("inspect", built)
    assert code == 0
    manifest = bundle.read_manifest(built)
    assert f"taken here  {hardware.detect().name}" in out
    assert "has all of it" in out
    assert manifest.tvm in out
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith(("conv", "dep"))}
    assert set(rows) == set(manifest.keys)
    entry = manifest.variants[0].kernels[PLAIN.key]
    assert f"channels={entry.decisions['channels']}" in rows[PLAIN.key]
    assert rows[PLAIN.key].endswith("default")


def test_inspect_as_json(invoke, built):
    code, out, _ = invoke("inspect", built, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["keys"] == [spec.key for spec in SPECS]
    assert found["taken_here"] == found["variants"][0]["machine"]
    assert found["variants"][0]["missing_here"] == []


def test_inspect_says_where_a_bundle_runs(invoke, built, monkeypatch):
    monkeypatch.setattr(host, "cpu_features", lambda: frozenset({"popcnt"}))
    code, out, _ = invoke("inspect", built)
    assert code == 0  # the bundle is sound
    assert "taken here  none" in out
    assert "lacks cx16" in out
    monkeypatch.setattr(host, "architecture", lambda: "riscv64")
    assert "lacks x86_64 linux" in invoke("inspect", built)[1]


def test_inspect_finds_damage(invoke, copied):
    library = copied / bundle.read_manifest(copied).variants[0].library
    library.write_bytes(library.read_bytes()[:-1])
    code, out, _ = invoke("inspect", copied)
    assert code == 1
    assert f"{library} is truncated or altered" in out
    assert json.loads(invoke("inspect", copied, "--json")[1])["variants"][0]["damage"]


# without a compiler


def test_verify_and_inspect_need_only_the_runtime(built):
    """As on a board: TVM, rich and the other packages for building cannot be imported."""
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tvm", "rich", "filelock", "platformdirs", "xgboost"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from tvmconv.commands import cli
sys.exit(cli.main(["verify", {str(built)!r}]) or cli.main(["inspect", {str(built)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 kernels" in done.stdout
    assert PLAIN.key in done.stdout


# publish and key


def test_a_bundle_is_signed_published_and_verified(invoke, tmp_path):
    key, built, live = tmp_path / "key", tmp_path / "b", tmp_path / "live"
    assert invoke("key", "--output", key)[0] == 0
    assert invoke("build", PLAIN.key, "--output", built, "--sign", key)[0] == 0
    assert invoke("publish", built, live)[:2] == (0, f"{live}\n")
    assert invoke("verify", live, "--trusted", f"{key}.pub")[0] == 0
    (built / "manifest.sig").unlink()
    assert invoke("publish", built, live)[0] == 0
    code, _, err = invoke("verify", live, "--trusted", f"{key}.pub")
    assert code == 1
    assert "is not signed; build it with" in err
