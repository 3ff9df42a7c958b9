"""Real .tflite files: read, and read and folded, they compute what LiteRT does."""

from __future__ import annotations

import numpy as np
import pytest
from model_files import FACES, MEDIAPIPE, model_files, run_litert

from tvmconv.errors import ModelError
from tvmconv.models.folding.fold import fold
from tvmconv.models.reading import read
from tvmconv.models.reference import evaluate

FACE_MODELS = (
    "face_detection_back", "face_detection_front", "face_detection_full_range",
    "face_detection_full_range_sparse", "face_detection_short_range", "face_landmark", "iris_landmark",
)  # fmt: skip
MEDIAPIPE_MODELS = (
    "face_landmark", "hand_landmark_full", "hand_landmark_lite", "hand_recrop", "palm_detection_full",
    "palm_detection_lite", "pose_detection", "pose_landmark_full", "selfie_segmentation",
    "selfie_segmentation_landscape",
)  # fmt: skip
# Of the largest output; XNNPACK is 3e-4 of pose's mask from LiteRT's own reference kernels.
CLOSE = 1e-3


def assert_as_litert(content: bytes) -> None:
    graph = read(content)
    rng = np.random.default_rng(0)
    inputs = {
        name: rng.uniform(0, 1, tensor.shape).astype(tensor.dtype)
        for name, tensor in graph.inputs.items()
    }
    expected = run_litert(content, list(inputs.values()))
    folded = fold(graph)
    assert len(folded.nodes) < len(graph.nodes)
    assert folded.inputs == graph.inputs
    assert list(folded.outputs) == list(graph.outputs)
    for each in (graph, folded):
        outputs = evaluate(each, inputs).values()
        for out, wanted in zip(outputs, expected, strict=True):
            assert out.shape == wanted.shape
            assert np.abs(out - wanted).max() <= CLOSE * np.abs(wanted).max()


@pytest.mark.parametrize("name", FACE_MODELS)
def test_face_models_compute_what_litert_does(name):
    assert_as_litert(model_files(FACES)[name].read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("name", MEDIAPIPE_MODELS)
def test_mediapipe_models_compute_what_litert_does(name):
    assert_as_litert(model_files(MEDIAPIPE)[name].read_bytes())


@pytest.mark.slow
def test_unknown_custom_operators_are_all_named_up_to_ten():
    path = model_files(MEDIAPIPE)["face_landmark_with_attention"]

    with pytest.raises(ModelError) as caught:
        read(path)

    lines = str(caught.value).splitlines()
    assert "Landmarks2TransformMatrix, operator 192" in lines[1]
    assert len(lines) == 1 + 10 + 1 + 1
    assert lines[-2] == "  and 1 more"


def test_all_sums_and_activations_of_face_detection_are_in_convolutions():
    folded = fold(read(model_files(FACES)["face_detection_front"]))

    assert {node.op for node in folded.nodes} == {
        "conv2d", "depthwise_conv2d", "max_pool2d", "reshape", "concat",
    }  # fmt: skip
