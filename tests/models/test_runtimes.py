"""Other people's runtimes, each with a small real model: values, call after call, and why they decline."""

import numpy as np
import pytest

from tvmconv.errors import MissingToolError, ModelError
from tvmconv.models import runtimes
from tvmconv.models.foreign.opened import Request
from tvmconv.models.reading import read
from tvmconv.models.reference import evaluate

RANDOM = np.random.default_rng(3)
IMAGES = {"x": RANDOM.uniform(0, 1, (1, 3, 12, 10)).astype(np.float32)}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Two outputs, whose names are not in the order of the alphabet."""
    onnx_models = pytest.importorskip("onnx_models")
    w = RANDOM.normal(size=(8, 3, 3, 3)).astype(np.float32)
    nodes = [
        ("Conv", ["x", "w"], ["z"], {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}),
        ("Relu", ["z"], ["r"], {}),
        ("GlobalAveragePool", ["r"], ["a"], {}),
    ]
    content = onnx_models.model(nodes, {"x": [1, 3, 12, 10]}, {"w": w}, ("z", "a"), opset=13)
    made = onnx_models.onnx.load_from_string(content)
    for value, shape in zip(made.graph.output, ([1, 8, 12, 10], [1, 8, 1, 1]), strict=True):
        kind = onnx_models.onnx.helper.make_tensor_value_info(value.name, 1, shape)
        value.CopyFrom(kind)
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def opened(name, path, inputs=IMAGES, outputs=("z", "a")):
    if runtimes.named(name).missing:
        pytest.skip(f"{name} is not installed")
    return runtimes.opened(name, Request(path, inputs, outputs, threads=1))


@pytest.mark.parametrize(
    "name", [each.name for each in runtimes.RUNTIMES if ".onnx" in each.suffixes]
)
def test_every_call_has_the_values_of_our_reference(name, file):
    expected = list(evaluate(read(file), IMAGES).values())

    model = opened(name, file)
    for _ in range(3):  # MNN's sessions compute in the memory of their inputs
        model.call()

    for made, right in zip(model.results(), expected, strict=True):
        np.testing.assert_allclose(made.reshape(right.shape), right, atol=1e-4)


def test_nothing_is_left_beside_the_model(file):
    opened("ncnn", file)

    assert [each.name for each in file.parent.iterdir()] == ["small.onnx"]


@pytest.mark.parametrize("name", ["mnn", "ncnn"])
def test_a_file_that_cannot_be_converted_says_what_the_converter_said(name, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x07nonsense")

    with pytest.raises(ModelError, match=r"cannot convert broken\.onnx \("):
        opened(name, broken)


def test_other_names_are_another_model(file):
    with pytest.raises(ModelError, match="Is this the model that was compiled"):
        opened("onnxruntime", file, {"image": IMAGES["x"]})


def test_ncnn_takes_one_image(file):
    with pytest.raises(ModelError, match=r"one image at a time, and x has the shape \(2, 3,"):
        opened("ncnn", file, {"x": np.zeros((2, 3, 12, 10), np.float32)})


def test_a_file_of_another_format_is_declined():
    assert runtimes.named("litert").why_not("model.onnx") == "it opens .tflite files"
    reason = "pnnx, which converts for it, opens .onnx files"
    assert runtimes.named("torch").why_not("model.tflite") == reason


def test_what_is_not_installed_says_how_to(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [])
    monkeypatch.delitem(__import__("sys").modules, "ncnn", raising=False)

    with pytest.raises(MissingToolError, match=r"ncnn cannot run m\.onnx: .*pip install ncnn pnnx"):
        runtimes.opened("ncnn", Request(tmp_path / "m.onnx", {}, (), 1))


def test_a_format_s_own_runtime_is_the_one_that_is_made_for_it():
    own = {suffix: runtimes.own(f"model{suffix}") for suffix in (".tflite", ".onnx", ".h5")}

    assert own[".tflite"].name == "litert"
    assert own[".onnx"].name == "onnxruntime"
    assert own[".h5"] is None
