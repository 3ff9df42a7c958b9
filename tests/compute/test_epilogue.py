"""What a fused epilogue does with values that are no numbers."""

import numpy as np
import pytest

import tvmconv
from tvmconv.checking.contract import lacking
from tvmconv.hardware import find_machine
from tvmconv.problem.rules import ACTIVATIONS


@pytest.fixture(scope="module", params=["host", "x86-64-v3"])
def library(request, tmp_path_factory):
    machine, _ = find_machine(request.param)
    if lacking(machine):
        pytest.skip(f"this machine lacks {', '.join(lacking(machine))}")
    specs = [
        make((1, 1, 1, 8), (1, 1, 8, last), activation=activation)
        for activation in ACTIVATIONS
        for make, last in ((tvmconv.ConvSpec.conv2d, 8), (tvmconv.ConvSpec.depthwise_conv2d, 1))
    ]
    path = tmp_path_factory.mktemp("epilogue") / "k"
    return tvmconv.load(tvmconv.build(specs, request.param, path), threads=1)


def test_nan_stays_nan(library):
    for key, kernel in library.items():
        spec = kernel.spec
        data = np.full(spec.input_shape, np.nan, "float32")

        assert np.isnan(kernel(data, np.ones(spec.filter_shape, "float32"))).all(), key


def test_infinities_go_to_the_ends_of_an_activation(library):
    for kernel in library.values():
        spec, ones = kernel.spec, np.ones(kernel.spec.filter_shape, "float32")
        if spec.activation in ("relu", "relu6"):
            low = kernel(np.full(spec.input_shape, -np.inf, "float32"), ones)
            high = kernel(np.full(spec.input_shape, np.inf, "float32"), ones)
            assert (low == 0).all()
            assert (high == (6 if spec.activation == "relu6" else np.inf)).all()
