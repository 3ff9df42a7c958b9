"""Transposed convolutions, as they are computed: one convolution, or one for each remainder."""

import numpy as np
import pytest

import tvmconv
from tvmconv.models import reference
from tvmconv.models.graph import Builder
from tvmconv.models.rewriting import rewritten

RANDOM = np.random.default_rng(8)


def values(*shape):
    return RANDOM.uniform(-1, 1, shape).astype(np.float32)


def transposed(b, window, strides, channels, size, begin=0):
    x = b.input(f"x{len(b.inputs)}", (1, 6, 5, 4), "float32")
    inputs = [x, b.constant("w", values(*window, channels, 4)), b.constant("b", values(channels))]
    pads = (begin, 0, begin, 0)
    made = b.node(
        "conv2d_transpose", inputs, strides=strides, pads=pads, size=size, activation="relu"
    )
    b.output(f"y{len(b.inputs)}", made)


@pytest.mark.parametrize(
    ("window", "strides", "channels", "filters"),
    [
        ((3, 3), (2, 2), 8, [(1, 1), (1, 2), (2, 1), (2, 2)]),
        ((3, 2), (2, 1), 8, [(1, 2), (2, 2)]),
        ((3, 3), (2, 2), 4, [(2, 2)]),  # too few channels to copy
        ((4, 4), (2, 2), 8, [(2, 2)]),  # all have as many
        ((5, 5), (2, 2), 8, [(3, 3)]),  # Winograd's
        ((2, 3), (3, 2), 8, [(1, 2)]),  # one remainder has none
    ],
)
def test_each_remainder_has_the_taps_that_it_needs(window, strides, channels, filters):
    b = Builder("transposed")
    transposed(b, window, strides, channels, size=(11, 10))
    graph = rewritten(b.graph())

    windows = [graph.constants[node.inputs[1]] for node in graph.nodes if node.op == "conv2d"]
    assert sorted(each.shape[:2] for each in windows) == filters


def test_values_are_those_of_the_sum_that_defines_it(tmp_path):
    b = Builder("transposed")
    transposed(b, (3, 3), (2, 2), 8, size=(12, 10))
    transposed(b, (3, 3), (2, 2), 9, size=(11, 9), begin=1)
    transposed(b, (3, 3), (2, 2), 8, size=(15, 13))
    transposed(b, (3, 3), (2, 2), 8, size=(7, 4), begin=2)
    transposed(b, (3, 2), (2, 1), 8, size=(12, 5))
    transposed(b, (4, 5), (3, 3), 16, size=(19, 17))
    graph = b.graph()
    model = tvmconv.load(tvmconv.compile(graph, output=tmp_path / "m.tvmconv"), threads=1)
    arrays = {name: values(*each.shape) for name, each in graph.inputs.items()}

    for made, right in zip(
        model(**arrays), reference.evaluate(graph, arrays).values(), strict=True
    ):
        np.testing.assert_allclose(made, right, rtol=1e-5, atol=1e-5)
