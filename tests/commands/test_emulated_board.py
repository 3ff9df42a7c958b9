"""Bundles built on this machine and run on emulated ARM boards: what a board's user does.

About 5 minutes in one process on the machine of README.md, most of it compiling.
"""

import dataclasses
import json

import boards
import numpy as np
import pytest
from keras_networks import network
from model_files import FACES, model_files, run_litert

import tvmconv
from tvmconv import hardware
from tvmconv.building import builder
from tvmconv.bundle import manifest as bundle
from tvmconv.checking import contract
from tvmconv.hardware import host
from tvmconv.models import comparing, reference
from tvmconv.models.graph import Builder
from tvmconv.problem.rules import BYTE_DTYPES, ITEM_BYTES
from tvmconv.problem.spec import ConvSpec
from tvmconv.records.choice import Selection

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CPUS = ("cortex-a72", "cortex-a76")
# Of the cores' manuals, less what only a kernel shows; an emulated CPU always has the cryptography.
_A72 = "fp asimd aes pmull sha1 sha2 crc32 cpuid"
FEATURES = {
    "cortex-a72": _A72,
    "cortex-a76": f"{_A72} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp",
}
SPEC = ConvSpec.conv2d((1, 9, 9, 8), (3, 3, 8, 16), bias=True, activation="relu")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """One bundle for this machine and two boards."""
    boards.require_linker()
    path = tmp_path_factory.mktemp("mixed") / "kernels.tvmconv"
    return tvmconv.build([SPEC], ["host", "raspberry-pi-4", "raspberry-pi-5"], path, logs=[])


def bundles(machine, folder, specs):
    """Bundles that have every schedule of the machine with every one of these specs it accepts.

    A bundle has one kernel for a problem, so problems with several schedules are in several bundles.
    """
    pack = hardware.load_pack("arm")
    ranks = {}
    for spec in specs:
        accepting = [schedule for schedule in pack.schedules if schedule.accepts(spec, machine)]
        for rank, schedule in enumerate(accepting):
            choice = Selection(spec, schedule, schedule.default(spec, machine), None)
            ranks.setdefault(rank, {})[spec] = choice
    for rank, choices in ranks.items():
        request = builder.Request(machine, pack, {spec.key: c for spec, c in choices.items()})
        yield (
            len(choices),
            builder.build_requests(list(choices), [request], folder / f"{rank}.tvmconv"),
        )


@pytest.mark.parametrize(
    ("cpu", "name", "dtypes"),
    [
        *((cpu, cpu, tuple(ITEM_BYTES)) for cpu in CPUS),
        # What these have not: matrices of bytes, products of unlike bytes.
        ("max", "neoverse-v1", BYTE_DTYPES),
    ],
)
def test_every_schedule_computes_every_edge_case_on_the_board(cpu, name, dtypes, tmp_path):
    boards.require_linker()
    machine, pack = hardware.find_machine(name)
    specs = [spec for spec in contract.edge_cases() if spec.dtype in dtypes]
    expected = {
        (schedule.name, spec.key)
        for schedule in pack.schedules
        for spec in specs
        if schedule.accepts(spec, machine)
    }
    seen = set()
    for count, path in bundles(machine, tmp_path, specs):
        done = boards.on_board(cpu, "tvmconv", "verify", path, "--json", timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        results = json.loads(done.stdout)
        assert results["machine"] == name
        assert len(results["kernels"]) == count
        assert all(result["failure"] is None for result in results["kernels"])
        seen |= {(result["schedule"], result["key"]) for result in results["kernels"]}
    assert seen == expected


@pytest.mark.parametrize("cpu", CPUS)
def test_a_mixed_bundle_runs_here_and_on_the_board(mixed, cpu):
    assert sorted(file.name for file in mixed.glob("libtvm_runtime-*")) == sorted(
        bundle.runtime_name(architecture) for architecture in {"aarch64", host.architecture()}
    )
    assert tvmconv.load(mixed).variant.architecture == host.architecture()

    done = boards.on_board(cpu, "tvmconv", "verify", mixed)
    assert (done.returncode, done.stdout) == (0, f"1 of 1 kernels for {cpu} are right with "
                                              f"{host.available_cores()} threads\n")  # fmt: skip


def test_a_board_is_known_by_its_name_too(mixed):
    done = boards.on_board("cortex-a72", "tvmconv", "verify", mixed, "--machine", "raspberry-pi-4")
    assert done.stdout.startswith("1 of 1 kernels for cortex-a72 are right"), done.stderr


def test_the_manifest_has_what_was_read_from_the_files(mixed):
    manifest = bundle.read_manifest(mixed)
    for variant in manifest.variants:
        assert variant.glibc == "2.27"  # of the runtime; the board is promised 2.28
        assert variant.runtime.sha256 == bundle.file_digest(mixed / variant.runtime.file)


@pytest.mark.parametrize(("cpu", "features"), FEATURES.items())
def test_features_are_those_of_the_emulated_cpu(cpu, features):
    code = "from tvmconv.hardware import host; print(*host.cpu_features())"
    assert set(boards.on_board(cpu, "python", "-c", code).stdout.split()) == set(features.split())


def test_what_the_board_lacks_is_said_before_anything_is_opened(mixed):
    done = boards.on_board("cortex-a72", "tvmconv", "verify", mixed, "--machine", "cortex-a76")

    assert done.returncode == 1
    assert "cortex-a76 needs atomics, " in done.stderr
    assert "which this CPU lacks" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"glibc": "9.99"}, "needs glibc 9.99 or newer, this system has glibc 2."),
        ({"architecture": "x86_64"}, "is for x86_64 linux, this process is aarch64 linux"),
    ],
)
def test_a_bundle_that_does_not_suit_the_board_is_refused(mixed, tmp_path, changes, message):
    manifest = bundle.read_manifest(mixed)
    # No library is there: opening one would be another error.
    variants = tuple(dataclasses.replace(variant, **changes) for variant in manifest.variants)
    bundle.write_manifest(tmp_path, dataclasses.replace(manifest, variants=variants))
    done = boards.on_board(
        "max", "python", "-c", f"import tvmconv; tvmconv.load({str(tmp_path)!r})"
    )

    assert "tvmconv.errors.IncompatibleMachineError" in done.stderr
    assert message in done.stderr
    assert "Build one for it" in done.stderr


def test_the_board_needs_numpy_and_tvm_ffi_alone():
    code = (
        "import importlib.metadata as m; print(*sorted({d.name for d in m.distributions()}));"
        "from tvmconv.hardware import host; print(host.cpu_name(), host.architecture(), host.glibc())"
    )
    done = boards.on_board("cortex-a72", "python", "-c", code)
    installed, described = done.stdout.splitlines()

    # typing_extensions is tvm_ffi's own need; ml_dtypes is there for kernels of bfloat16 alone.
    assert installed.split() == [
        "apache-tvm-ffi", "ml_dtypes", "numpy", "tvmconv", "typing_extensions",
    ]  # fmt: skip
    assert described.startswith("Cortex-A72 aarch64 2.")


def test_the_board_says_what_it_has_not():
    done = boards.on_board("cortex-a72", "no-such-program")
    assert done.returncode == 127
    assert "the emulated board has no no-such-program: it has python" in done.stderr


def test_a_whole_model_computes_the_same_on_the_board(tmp_path):
    boards.require_linker()
    random = np.random.default_rng(0)
    build = Builder("small")
    x = build.input("x", (1, 8, 8, 4), "float32")
    w = build.constant("w", random.standard_normal((3, 3, 4, 8), np.float32))
    conv = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "activation": "relu"}
    y = build.node("mean", [build.node("conv2d", [x, w], **conv)], axes=(1, 2), keepdims=False)
    w = build.constant("dense", random.standard_normal((8, 5), np.float32))
    y = build.node("dense", [y, w], activation=None)
    build.output("y", build.node("softmax", [y], axis=1))
    graph = build.graph()
    path = tvmconv.compile(graph, "raspberry-pi-4", tmp_path / "small.tvmconv", logs=[])
    image = random.standard_normal((1, 8, 8, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", image)
    code = (
        "import sys, numpy, tvmconv; y = tvmconv.load(sys.argv[1], threads=1)(numpy.load(sys.argv[2]));"
        "assert 'tvm' not in sys.modules; print(*y.ravel().tolist())"
    )

    done = boards.on_board("cortex-a72", "python", "-c", code, path, tmp_path / "x.npy")

    assert done.returncode == 0, done.stderr
    expected = reference.evaluate(graph, {"x": image})["y"].ravel()
    np.testing.assert_allclose([float(v) for v in done.stdout.split()], expected, atol=1e-5)


ON_BOARD = """
import sys, numpy, tvmconv
model = tvmconv.load(sys.argv[1], threads=1)
with numpy.load(sys.argv[2]) as file:
    made = model(*file.values())
assert "tvm" not in sys.modules and "tvm_ffi" not in sys.modules
numpy.savez(sys.argv[3], *(made if isinstance(made, tuple) else (made,)))
"""
REAL_MODELS = {
    "face_detection_short_range": lambda: model_files(FACES)[
        "face_detection_short_range"
    ].read_bytes(),
    "face_detection_back": lambda: model_files(FACES)["face_detection_back"].read_bytes(),
    "MobileNetV2": lambda: network("MobileNetV2", 224, last=None),
}


@pytest.mark.parametrize("name", REAL_MODELS)
def test_real_models_compute_on_the_boards_what_litert_does_here(name, tmp_path):
    boards.require_linker()
    content = REAL_MODELS[name]()
    (tmp_path / "model.tflite").write_bytes(content)
    path = tmp_path / "model.tvmconv"
    tvmconv.compile(tmp_path / "model.tflite", ["raspberry-pi-4", "raspberry-pi-5"], path, logs=[])
    entries = bundle.read_manifest(path).model
    inputs = comparing.random_inputs(entries.inputs, seed=0)
    np.savez(tmp_path / "inputs.npz", *inputs.values())
    expected = run_litert(content, list(inputs.values()))

    for cpu in CPUS:
        files = path, tmp_path / "inputs.npz", tmp_path / f"{cpu}.npz"
        done = boards.on_board(cpu, "python", "-c", ON_BOARD, *files, timeout=400)
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / f"{cpu}.npz") as made:
            for entry, out, right in zip(entries.outputs, made.values(), expected, strict=True):
                found = comparing.difference(entry.name, out, right)
                assert found.passes, (cpu, found)
