"""What a fused epilogue does with values that are no numbers."""

import numpy as np
import pytest

import tvmconv
from tvmconv.checking import oracle
from tvmconv.checking.contract import lacking
from tvmconv.hardware import find_machine
from tvmconv.problem.rules import ACTIVATIONS, PRELU


@pytest.fixture(scope="module", params=["host", "x86-64-v3"])
def library(request, tmp_path_factory):
    machine, _ = find_machine(request.param)
    if lacking(machine):
        pytest.skip(f"this machine lacks {', '.join(lacking(machine))}")
    specs = [
        make((1, 1, 1, 8), (1, 1, 8, last), activation=activation)
        for activation in (*ACTIVATIONS, PRELU)
        for make, last in ((tvmconv.ConvSpec.conv2d, 8), (tvmconv.ConvSpec.depthwise_conv2d, 1))
    ]
    path = tmp_path_factory.mktemp("epilogue") / "k"
    return tvmconv.load(tvmconv.build(specs, request.param, path), threads=1)


def slopes(spec):
    return np.full(spec.slopes_shape, 0.25, "float32") if spec.slopes else None


def test_nan_stays_nan(library):
    for key, kernel in library.items():
        spec = kernel.spec
        data = np.full(spec.input_shape, np.nan, "float32")

        layer = kernel.bind(np.ones(spec.filter_shape, "float32"), slopes=slopes(spec))
        assert np.isnan(layer(data)).all(), key


def test_infinities_go_to_the_ends_of_an_activation(library):
    for kernel in library.values():
        spec, ones = kernel.spec, np.ones(kernel.spec.filter_shape, "float32")
        if spec.activation in ("relu", "relu6"):
            low = kernel(np.full(spec.input_shape, -np.inf, "float32"), ones)
            high = kernel(np.full(spec.input_shape, np.inf, "float32"), ones)
            assert (low == 0).all()
            assert (high == (6 if spec.activation == "relu6" else np.inf)).all()


def test_slopes_are_given_where_the_activation_takes_them(library):
    for kernel in library.values():
        window = np.ones(kernel.spec.filter_shape, "float32")
        if kernel.spec.slopes:
            with pytest.raises(ValueError, match="was built with slopes, but none was given"):
                kernel.bind(window)
            with pytest.raises(ValueError, match=r"slopes of .* must have shape \(8,\)"):
                kernel.bind(window, slopes=np.ones(7, "float32"))
        else:
            with pytest.raises(ValueError, match="was built without slopes, but one was given"):
                kernel.bind(window, slopes=np.ones(8, "float32"))


def test_a_residual_of_fewer_channels_is_taken_and_may_not_be_the_output(tmp_path):
    spec = tvmconv.ConvSpec.conv2d((1, 3, 3, 8), (1, 1, 8, 24), residual=True, residual_channels=20)
    kernel = tvmconv.load(tvmconv.build([spec], "host", tmp_path / "k"), threads=1)[spec]
    arguments = oracle.random_arguments(spec, seed=0)
    layer = kernel.bind(arguments["filter"])
    memory = np.zeros(9 * 24, "float32")
    residual, out = memory[: 9 * 20].reshape(1, 3, 3, 20), memory.reshape(1, 3, 3, 24)
    residual[...] = arguments["residual"]

    assert layer(arguments["data"], residual, out=out) is out
    oracle.assert_close(spec, oracle.conv(spec, **arguments), out)
    with pytest.raises(ValueError, match=r"residual of .* must have shape \(1, 3, 3, 20\)"):
        layer(arguments["data"], out)
