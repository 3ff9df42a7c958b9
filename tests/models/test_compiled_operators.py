"""Values of every operator, compiled: all of them in one model, beside NumPy."""

import numpy as np
import operator_cases
import pytest

import tvmconv
from tvmconv.models import reference
from tvmconv.models.graph import Builder
from tvmconv.models.operators import OPERATORS
from tvmconv.models.partition import QUANTIZED
from tvmconv.models.rest import reductions

TOLERANCE = 2e-5  # of 1 + the value: float32, and sums of a few hundred products

pytestmark = pytest.mark.slow  # 20 s, most of them compiling 150 functions


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """Outputs of one model of all cases, from arrays that are not aligned, and what NumPy makes."""
    builder = Builder("operators")
    for case in operator_cases.CASES:
        builder.output(case.name, case.add(builder, case.name))
    graph = builder.graph()
    path = tvmconv.compile(graph, output=tmp_path_factory.mktemp("model") / "all.tvmconv")
    random = np.random.default_rng(3)
    inputs = {
        name: _unaligned(random.uniform(-3, 3, tensor.shape).astype(tensor.dtype))
        for name, tensor in graph.inputs.items()
    }
    model = tvmconv.load(path, threads=2)
    return dict(zip(graph.outputs, model(**inputs), strict=True)), reference.evaluate(graph, inputs)


def _unaligned(array):
    raw = np.empty(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64 + array.itemsize
    view = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


@pytest.mark.parametrize("name", [case.name for case in operator_cases.CASES])
def test_a_compiled_operator_computes_what_numpy_does(computed, name):
    made, expected = (np.asarray(values[name]) for values in computed)

    assert made.shape == expected.shape
    np.testing.assert_allclose(
        made.astype(float), expected.astype(float), rtol=TOLERANCE, atol=TOLERANCE
    )


def test_every_operator_has_a_case():
    builder = Builder("operators")
    for case in operator_cases.CASES:
        case.add(builder, case.name)

    # Those of bytes are compared with LiteRT's, in test_quantized_tflite.py.
    of_bytes = {"quantize", "dequantize", *QUANTIZED}
    assert {node.op for node in builder.nodes} == set(OPERATORS) - of_bytes


@pytest.mark.parametrize(
    ("extent", "width"), [(64, 64), (72, 72), (120, 120), (240, 80), (672, 112), (131, 131)]
)
def test_sums_of_channels_are_whole_vectors_or_powers_of_two(extent, width):
    assert reductions.width_of(extent, lanes=16) == width
