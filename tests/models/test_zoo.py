"""Whole models of other people, compiled here, on one thread and on two, beside their own runtimes."""

from __future__ import annotations

import numpy as np
import pytest
import torchvision_models
from keras_networks import network
from model_files import FACES, MEDIAPIPE, model_files, run_litert

import tvmconv
from tvmconv.bundle.model_entries import TensorEntry
from tvmconv.models.comparing import TOLERANCE, difference

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a minute where nothing else runs

FACE_MODELS = (
    "face_detection_back", "face_detection_front", "face_detection_full_range",
    "face_detection_full_range_sparse", "face_detection_short_range", "face_landmark", "iris_landmark",
)  # fmt: skip
MEDIAPIPE_MODELS = (
    "selfie_segmentation", "hand_landmark_full", "hand_landmark_lite", "palm_detection_full",
    "palm_detection_lite",
)  # fmt: skip
KERAS_MODELS = (
    "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "EfficientNetB0", "ResNet50", "DenseNet121",
)  # fmt: skip
TORCHVISION_MODELS = (
    "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "resnet50", "efficientnet_b0",
    "shufflenet_v2_x1_0", "convnext_tiny",
)  # fmt: skip
IMAGE = TensorEntry("x", (1, 3, 224, 224), "float32")
ONNX_MODELS = (
    "squeezenet",
    "resnet50",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "shufflenet",
)


def assert_computes(path, expected):
    """``expected`` are the outputs for what `inputs` makes."""
    single = tvmconv.load(path, threads=1)
    image = inputs(single.inputs)
    other = outputs(single, [np.zeros_like(each) for each in image])
    for model in (single, tvmconv.load(path, threads=2)):
        made = zip(model.outputs, outputs(model, image), expected, other, strict=True)
        for entry, out, right, moved in made:
            # With random weights an output may hardly depend on the image: that much must show.
            change = np.abs(moved - right).max() / np.abs(right).max()
            found = difference(entry.name, out, right, min(TOLERANCE, change / 20))
            assert found.passes, (model.threads, found)


def outputs(model, given):
    made = model(*given)
    return made if isinstance(made, tuple) else (made,)


def inputs(entries):
    rng = np.random.default_rng(0)
    return [rng.uniform(0, 1, each.shape).astype(each.dtype) for each in entries]


def compiled(content, name, folder):
    file = folder / name
    file.write_bytes(content)
    return tvmconv.compile(file, output=folder / "model.tvmconv")


def check_tflite(content, folder):
    path = compiled(content, "model.tflite", folder)
    entries = tvmconv.load(path, threads=1).inputs
    assert_computes(path, run_litert(content, inputs(entries)))


@pytest.mark.parametrize("name", FACE_MODELS)
def test_face_models(name, tmp_path):
    check_tflite(model_files(FACES)[name].read_bytes(), tmp_path)


@pytest.mark.parametrize("name", MEDIAPIPE_MODELS)
def test_mediapipe_models(name, tmp_path):
    check_tflite(model_files(MEDIAPIPE)[name].read_bytes(), tmp_path)


@pytest.mark.parametrize("name", KERAS_MODELS)
def test_keras_networks(name, tmp_path):
    # No softmax: the largest value would be 1 for any image.
    check_tflite(network(name, 224, last=None), tmp_path)


@pytest.mark.parametrize("name", TORCHVISION_MODELS)
def test_torchvision_networks(name, tmp_path):
    module = torchvision_models.network(name)
    torch = pytest.importorskip("torch")
    (image,) = inputs([IMAGE])
    with torch.no_grad():
        expected = module(torch.from_numpy(image)).numpy()

    path = tvmconv.compile(
        module, output=tmp_path / "model.tvmconv", example_inputs=(torch.from_numpy(image),)
    )

    assert_computes(path, [expected])


@pytest.mark.parametrize("name", ONNX_MODELS)
def test_light_models_of_onnx(name, tmp_path):
    pytest.importorskip("onnx")
    from onnx_models import light, run_onnxruntime

    content = light(name)
    path = compiled(content, "model.onnx", tmp_path)
    entries = tvmconv.load(path, threads=1).inputs
    given = {each.name: array for each, array in zip(entries, inputs(entries), strict=True)}

    assert_computes(path, run_onnxruntime(content, given))
