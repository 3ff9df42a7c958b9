"""From scales and zero points to what quantised kernels take."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import quantized_specs

from tvmconv.checking import oracle
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime.quantization import Quantization

SPEC = ConvSpec.conv2d((1, 4, 5, 6), (3, 3, 6, 8), dtype="int8", bias=True, quantized="int8")
FILTER = np.ones(SPEC.filter_shape, np.int8)
USUAL = Quantization(0.02, -3, 0.01, 0.05, 4)


@settings(max_examples=60, deadline=None)
@given(quantized_specs(empty=False), st.integers(0, 99), st.booleans())
def test_a_folded_bias_sums_up_what_bytes_stand_for(spec, seed, ends):
    """Against the sum of (data - zero point) * filter, with zeros around the image."""
    rng = np.random.default_rng(seed)
    data, out = np.iinfo(spec.dtype), np.iinfo(spec.out_dtype)
    point = int(rng.choice([data.min, data.max]) if ends else rng.integers(data.min, data.max))
    zero = int(rng.choice([out.min, out.max]) if ends else rng.integers(out.min, out.max))
    given = oracle.random_arguments(spec, seed)
    per_channel = rng.uniform(0.001, 0.02, spec.out_channels).astype(np.float32)
    layer = Quantization(0.5, point, per_channel, 2.0, zero)
    constants = layer.constants(spec, given["filter"], given["bias"])

    made = oracle.conv(spec, given["data"], constants.pop("w"), residual=None, **constants)
    centred = given["data"].astype(np.float64) - point
    plain = ConvSpec.conv2d if spec.op == "conv2d" else ConvSpec.depthwise_conv2d
    top, bottom, left, right = spec.pads
    pads = [(0, 0), (top, bottom), (left, right), (0, 0)]
    if spec.data_format == "NCHW":
        pads = [pads[0], pads[3], *pads[1:3]]
    floats = plain(
        spec.input_shape, spec.filter_shape, spec.strides, pads, spec.data_format, spec.dilations,
        "float64", True,
    )  # fmt: skip
    sums = oracle.conv(
        floats, centred, given["filter"].astype(np.float64), given["bias"].astype(np.float64)
    )
    shape = [1] * sums.ndim
    shape[-3 if spec.data_format == "NCHW" else -1] = spec.out_channels
    scales = (np.float32(0.5) * per_channel / np.float32(2.0)).reshape(shape)
    rounded = np.rint((sums.astype(np.float32) * scales).astype(np.float64)) + zero
    np.testing.assert_array_equal(made, np.clip(rounded, out.min, out.max))


def test_one_scale_is_that_of_every_channel():
    scales = USUAL.constants(SPEC, FILTER)["scales"]
    assert scales.shape == (8,)
    assert scales.dtype == np.float32
    assert set(scales) == {np.float32(0.02) * np.float32(0.01) / np.float32(0.05)}


@pytest.mark.parametrize(
    ("activation", "expected"),
    [(None, (-128, 127)), ("relu", (4, 127)), ("relu6", (4, 124))],
)
def test_activations_are_clamps(activation, expected):
    layer = Quantization(0.02, -3, 0.01, 0.05, 4, activation=activation)
    limits = layer.constants(SPEC, FILTER)["limits"]
    assert tuple(limits) == (-3, 4, *expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((0.02, -129, 0.01, 0.05, 4), "a zero point of int8"),
        ((0.02, 0, 0.01, 0.05, 128), "a zero point of int8"),
        ((0.0, 0, 0.01, 0.05, 0), "input_scale"),
        ((0.02, 0, 0.01, float("inf"), 0), "output_scale"),
        ((0.02, 0, np.ones(3), 0.05, 0), "one positive number or 8"),
        ((0.02, 0, -0.1, 0.05, 0), "filter_scale"),
    ],
)
def test_wrong_numbers_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Quantization(*change).constants(SPEC, FILTER)
