"""``tvmconv verify`` of a compiled model."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from model_files import FACES, model_files

import tvmconv
from tvmconv.models.folding.fold import fold
from tvmconv.models.graph import Builder
from tvmconv.models.reading import read

pytestmark = pytest.mark.usefixtures("user_records")
pytest_plugins = ("bundle_fixtures",)
RANDOM = np.random.default_rng(7)


def small(scale: float = 1.0):
    """A convolution and a logarithm, which is no number where all that is behind the relu is 0."""
    b = Builder("small")
    x = b.input("x", (1, 5, 4, 3), "float32")
    w = b.constant("w", np.full((3, 3, 3, 16), scale, np.float32))
    fixed = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
    y = b.node("conv2d", [x, w], activation="relu", **fixed)
    b.output("y", b.node("log", [y]))
    return b.graph()


def test_kernels_and_outputs_are_checked_without_the_model(invoke, tmp_path):
    path = tvmconv.compile(small(), output=tmp_path / "m.tvmconv")

    code, out, _ = invoke("verify", path)

    assert code == 0
    assert "1 of 1 kernels" in out
    assert "all finite numbers" in out
    assert "--model FILE" in out
    for option in ("--tensors", "--reference"):
        code, _, err = invoke("verify", path, option)
        assert (code, "add --model FILE" in err) == (2, True)


def test_outputs_that_are_not_finite_are_named(invoke, tmp_path):
    path = tvmconv.compile(small(-1.0), output=tmp_path / "m.tvmconv")

    code, out, _ = invoke("verify", path, "--json")

    assert code == 1
    assert json.loads(out)["not_finite"] == ["y"]


def test_a_bundle_of_kernels_has_no_model(invoke, built):
    code, _, err = invoke("verify", built, "--model", "m.tflite")

    assert code == 2
    assert "holds kernels, no model" in err


def test_mistaken_files_are_errors(invoke, tmp_path):
    path = tvmconv.compile(small(), output=tmp_path / "m.tvmconv")
    (tmp_path / "m.onnx").write_bytes(b"no model")
    arguments = {
        "does not exist": ("--model", tmp_path / "nowhere.tflite"),
        "is a directory": ("--model", tmp_path),
        "the model's inputs are x": ("--model", tmp_path / "m.onnx", "--input", "y=y.npy"),
        "y.npy: No such file": ("--model", tmp_path / "m.onnx", "--input", "x=y.npy"),
    }
    for message, more in arguments.items():
        code, _, err = invoke("verify", path, *more)
        assert (code in (1, 2), message in err) == (True, True), err


def onnx_file(path):
    """A convolution of an input whose height and width are open."""
    onnx = pytest.importorskip("onnx")
    h = onnx.helper
    w = RANDOM.standard_normal((8, 3, 3, 3)).astype(np.float32)
    value = h.make_tensor_value_info
    graph = h.make_graph(
        [h.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), h.make_node("Relu", ["c"], ["y"])],
        "g",
        [value("x", onnx.TensorProto.FLOAT, [1, 3, "height", "width"])],
        [value("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(w, "w")],
    )  # fmt: skip
    opset = [h.make_opsetid("", 17)]
    onnx.save(h.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def test_an_onnx_model_of_open_shape_goes_through_all_verbs(invoke, tmp_path):
    file, path = onnx_file(tmp_path / "m.onnx"), tmp_path / "m.tvmconv"
    shape = ("--input-shape", "x=1,3,8,6")
    assert invoke("compile", file, *shape, "--output", path)[0] == 0

    for more in ((), ("--reference",), ("--tensors",)):
        code, out, err = invoke("verify", path, "--model", file, *more)
        assert code == 0, out + err
    code, out, _ = invoke("tune", file, *shape, "--list", "--json")
    assert (code, len(json.loads(out))) == (0, 1)
    peers = ("--peers", "onnxruntime") if importlib.util.find_spec("onnxruntime") else ()
    code, out, err = invoke("bench", file, *shape, "--rounds", 1, *peers, "--json", "-")
    assert code == 0, err
    assert set(json.loads(out)["seconds"]) == {"tvmconv", *peers[1:]}


@pytest.fixture(scope="module")
def face(user_records, tmp_path_factory):
    """A real model, and what it is compiled to."""
    file = model_files(FACES)["face_detection_short_range"]
    return file, tvmconv.compile(file, output=tmp_path_factory.mktemp("face") / "m.tvmconv")


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--reference",), ("--tensors",)])
def test_a_real_model_is_what_its_runtime_says(invoke, face, more):
    file, path = face
    if not more:
        pytest.importorskip("ai_edge_litert")

    code, out, _ = invoke("verify", path, "--model", file, "--json", *more)

    found = json.loads(out)
    assert code == 0
    assert ("litert" in found["beside"]) == (not more)
    assert len(found["values"]) == (2 if more != ("--tensors",) else len(fold(read(file)).nodes))
    assert max(each["relative"] for each in found["values"]) < 1e-5


@pytest.mark.slow
def test_the_first_layer_that_deviates_is_named(invoke, face):
    file, path = face

    code, out, _ = invoke(
        "verify", path, "--model", file, "--tensors", "--tolerance", "1e-12", "--seed", "3"
    )

    assert code == 1
    first = fold(read(file)).nodes[0]
    assert f"the first that deviates: {first.name} ({first.place})" in out


@pytest.mark.slow
def test_another_model_of_the_same_shapes_is_found_out(invoke, face, tmp_path):
    file, _ = face
    graph = fold(read(file))
    last = next(name for name in reversed(graph.constants) if graph.constants[name].ndim == 4)
    changed = {**graph.constants, last: graph.constants[last] * np.float32(1.01)}
    other = dataclasses.replace(graph, constants=changed)
    path = tvmconv.compile(other, output=tmp_path / "m.tvmconv")

    code, out, _ = invoke("verify", path, "--model", file)

    assert code == 1
    assert "WRONG" in out
    assert "the same command with --tensors" in out
