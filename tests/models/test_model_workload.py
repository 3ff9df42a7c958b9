"""The convolutions of a model, as the tuner takes them."""

import json

import numpy as np
import pytest
from model_files import FACES, model_files

import tvmconv
from tvmconv.bundle import manifest
from tvmconv.errors import ModelError
from tvmconv.models.graph import Builder
from tvmconv.models.workload import workload

pytestmark = pytest.mark.usefixtures("user_records")
pytest_plugins = ("bundle_fixtures",)
FIXED = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}


def layers(count):
    """A depthwise convolution, and ``count`` equal ones."""
    b = Builder("layers")
    y = b.input("x", (1, 6, 6, 8), "float32")
    w = b.constant("d", np.ones((3, 3, 8, 1), np.float32))
    y = b.node("depthwise_conv2d", [y, w], activation=None, **FIXED)
    for number in range(count):
        w = b.constant(f"w{number}", np.full((3, 3, 8, 8), number, np.float32))
        y = b.node("relu", [b.node("conv2d", [y, w], activation=None, **FIXED)])
    b.output("y", y)
    return b.graph()


def test_equal_convolutions_are_one_layer_that_occurs_so_often(tmp_path):
    graph = layers(3)
    made = workload(graph)

    assert [(each.name, each.count) for each in made.entries] == [
        ("depthwise_conv2d_1", 1),
        ("conv2d_2", 3),
    ]
    assert [each.name for each in made.sequence] == ["depthwise_conv2d_1", *["conv2d_2"] * 3]
    compiled = manifest.read_manifest(tvmconv.compile(graph, output=tmp_path / "m.tvmconv"))
    assert set(compiled.variants[0].kernels) == {each.spec.key for each in made.entries}


def test_a_model_without_convolutions_is_nothing_to_tune():
    b = Builder("plain")
    b.output("y", b.node("tanh", [b.input("x", (1, 4), "float32")]))

    with pytest.raises(ModelError, match="plain has no convolution"):
        workload(b.graph())


def test_a_file_is_listed_layer_by_layer(invoke):
    file = model_files(FACES)["face_detection_short_range"]

    code, out, _ = invoke("tune", file, "--list", "--json")

    rows = json.loads(out)
    assert code == 0
    assert [row["name"] for row in rows] == [each.name for each in workload(file).entries]
    assert {row["state"] for row in rows} == {"missing"}


@pytest.mark.slow
def test_a_named_convolution_of_a_model_is_tuned(invoke, tmp_path):
    file = model_files(FACES)["face_detection_short_range"]
    first = workload(file).entries[0]

    arguments = ["--layers", first.name, "--trials", 2, "--output", tmp_path / "logs", "--json"]
    code, out, _ = invoke("tune", file, *arguments)

    (outcome,) = json.loads(out)
    assert (code, outcome["key"]) == (0, first.spec.key)


@pytest.mark.parametrize("verb", ["compile", "tune", "build"])
def test_mistaken_paths_are_errors(invoke, tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "here.tflite").write_bytes(b"no model")
    wanted = {
        "nowhere.tflite": (2, "nowhere.tflite does not exist"),
        "folder.onnx": (2, "folder.onnx is a directory"),
        "here.tflite": (1, "not a model that can be read"),
    }
    for name, (expected, message) in wanted.items():
        if verb == "build":
            expected, message = 2, f"tvmconv compile {name} --output PATH"
        more = [] if verb == "tune" else ["--output", "m.tvmconv"]
        code, _, err = invoke(verb, name, *more)
        assert (code, message in err) == (expected, True), err


@pytest.mark.slow
def test_compile_says_what_to_do_next(invoke, tmp_path):
    file = model_files(FACES)["face_detection_short_range"]
    path = tmp_path / "a model.tvmconv"

    code, out, _ = invoke("compile", file, "--untuned", "--output", path)

    assert code == 0
    distinct = len(workload(file).entries)
    assert f"{distinct} of {distinct} different convolutions have no tuning record" in out
    assert f"check it:   tvmconv verify '{path}' --model {file}\n" in out
    assert f"tvmconv bench {file} --bundle '{path}' --peers all\n" in out
