"""Each operator of .onnx files against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import run_onnxruntime
from onnx_operators import MODELS

from tvmconv.models.folding.fold import fold
from tvmconv.models.reading import read
from tvmconv.models.reference import evaluate

# Values that no transpose may be left for: of the input to NHWC, and of the output back.
BORDERS = {
    "squeeze and excite": 2,
    "reshape pixel": 1,
    "reshape groups": 3,
    "flatten": 2,
    "softmax": 2,
}


@pytest.mark.parametrize("name", MODELS)
def test_an_operator_computes_what_onnxruntime_does(name):
    content = MODELS[name]
    graph = read(content)
    x = np.random.default_rng(0).uniform(-1, 1, graph.inputs["x"].shape).astype(np.float32)
    expected = run_onnxruntime(content, {"x": x})
    for each in (graph, fold(graph)):
        made = evaluate(each, {"x": x})
        for out, wanted in zip(made.values(), expected, strict=True):
            assert out.shape == wanted.shape
            np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name", BORDERS)
def test_transposes_are_left_at_the_borders_alone(name):
    nodes = fold(read(MODELS[name])).nodes

    assert sum(node.op == "transpose" for node in nodes) == BORDERS[name]
