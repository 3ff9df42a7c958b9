"""Networks of keras.applications with random weights, through TensorFlow's converter, against LiteRT."""

from __future__ import annotations

import numpy as np
import pytest
from keras_networks import network
from model_files import run_litert

from tvmconv.models.folding.fold import fold
from tvmconv.models.reading import read
from tvmconv.models.reference import evaluate

# Operators that are left once all is folded.
CONVOLUTIONS = {"conv2d", "depthwise_conv2d", "mean", "dense", "softmax"}
MODELS = {
    "MobileNetV2": CONVOLUTIONS,
    "MobileNetV3Small": CONVOLUTIONS | {"multiply", "add", "reshape"},
    "EfficientNetB0": CONVOLUTIONS | {"multiply", "subtract"},
    "ResNet50": CONVOLUTIONS | {"pad", "max_pool2d"},
    "DenseNet121": CONVOLUTIONS
    | {"pad", "max_pool2d", "average_pool2d", "concat", "multiply", "add", "relu"},
}


@pytest.mark.slow
@pytest.mark.timeout(600)  # conversion alone takes a minute on a busy machine
@pytest.mark.parametrize("name", MODELS)
def test_keras_networks_compute_what_litert_does(name):
    content = network(name, 64)
    image = np.random.default_rng(0).uniform(0, 1, (1, 64, 64, 3)).astype(np.float32)
    (expected,) = run_litert(content, [image])
    graph = read(content)
    folded = fold(graph)

    assert {node.op for node in folded.nodes} <= MODELS[name]
    for each in (graph, folded):
        (out,) = evaluate(each, dict.fromkeys(graph.inputs, image)).values()
        np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-6)
