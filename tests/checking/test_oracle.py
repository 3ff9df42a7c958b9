import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow_oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Call, legal_calls, legal_specs

from tvmconv.checking.oracle import (
    activate,
    check,
    conv,
    max_error,
    random_arguments,
    within,
)
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime.tensors import numpy_dtype

BY_HAND = ConvSpec.conv2d((1, 1, 3, 1), (1, 2, 1, 1))
DATA = np.array([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1)
FILTER = np.array([10.0, 1.0]).reshape(1, 2, 1, 1)


def brute_force(spec: ConvSpec, data: np.ndarray, window: np.ndarray) -> np.ndarray:
    """The formulas of ConvSpec's docstring, one output element at a time; NHWC and rank 4."""
    out = np.zeros(spec.output_shape)
    group_in, group_out = spec.filter_shape[2], spec.out_channels // spec.groups
    for b, i, j, k in itertools.product(*map(range, spec.output_shape)):
        for di, dj in itertools.product(range(spec.kernel_height), range(spec.kernel_width)):
            y = spec.strides[0] * i + spec.dilations[0] * di - spec.pads[0]
            x = spec.strides[1] * j + spec.dilations[1] * dj - spec.pads[2]
            if not (0 <= y < spec.in_height and 0 <= x < spec.in_width):
                continue
            if spec.op == "depthwise_conv2d":
                c, q = divmod(k, spec.multiplier)
                out[b, i, j, k] += data[b, y, x, c] * window[di, dj, c, q]
                continue
            for q in range(group_in):
                channel = k // group_out * group_in + q
                out[b, i, j, k] += data[b, y, x, channel] * window[di, dj, q, k]
    return out


def plain(call: Call) -> ConvSpec:
    """Rank 4, NHWC, float64 and no epilogue."""
    bare = dataclasses.replace(
        call,
        leading=call.leading[:1],
        data_format="NHWC",
        dtype="float64",
        bias=False,
        residual=False,
        residual_channels=None,
        activation=None,
        tf32=False,
    )
    return bare.spec()


@settings(max_examples=60, deadline=None)
@given(legal_calls(max_size=3).map(plain))
def test_formula(spec: ConvSpec):
    arguments = random_arguments(spec, seed=1)
    expected = brute_force(spec, arguments["data"], arguments["filter"])
    np.testing.assert_allclose(conv(spec, **arguments), expected, rtol=0, atol=1e-13)


def test_example_by_hand():
    # The filter is not flipped, and SAME pads the even filter's odd pixel on the right.
    assert conv(BY_HAND, DATA, FILTER).ravel().tolist() == [12.0, 24.0, 40.0]


def test_depthwise_channels_are_input_major():
    spec = ConvSpec.depthwise_conv2d((1, 1, 1, 2), (1, 1, 2, 3))
    window = np.arange(1.0, 7.0).reshape(1, 1, 2, 3)
    out = conv(spec, np.array([1.0, 10.0]).reshape(1, 1, 1, 2), window)
    assert out.ravel().tolist() == [1.0, 2.0, 3.0, 40.0, 50.0, 60.0]


def test_epilogue_adds_bias_and_residual_before_the_activation():
    spec = dataclasses.replace(BY_HAND, bias=True, residual=True, activation="relu")
    residual = np.array([10.0, -30.0, 0.5]).reshape(1, 1, 3, 1)
    out = conv(spec, DATA, FILTER, bias=np.array([-20.0]), residual=residual)
    assert out.ravel().tolist() == [2.0, 0.0, 20.5]


@pytest.mark.parametrize(
    ("activation", "values"),
    [
        (None, [-800, -3, -1, 0, 2, 6, 800]),
        ("relu", [0, 0, 0, 0, 2, 6, 800]),
        ("relu6", [0, 0, 0, 0, 2, 6, 6]),
        ("hard_sigmoid", [0, 0, 2 / 6, 0.5, 5 / 6, 1, 1]),
        ("hard_swish", [0, 0, -2 / 6, 0, 10 / 6, 6, 800]),
        ("sigmoid", [0, 1 / (1 + np.e**3), 1 / (1 + np.e), 0.5, 1 / (1 + np.e**-2), None, 1]),
        ("silu", [0, -3 / (1 + np.e**3), -1 / (1 + np.e), 0, 2 / (1 + np.e**-2), None, 800]),
    ],
)
def test_activation_values(activation, values):
    x = np.array([-800.0, -3.0, -1.0, 0.0, 2.0, 6.0, 800.0])
    with np.errstate(over="raise"):
        got = activate(activation, x)
    for value, expected in zip(got, values, strict=True):
        assert expected is None or value == pytest.approx(expected, rel=1e-14, abs=1e-300)


@settings(max_examples=40, deadline=None)
@given(legal_specs())
def test_nchw_and_leading_dimensions_are_views_of_the_same_problem(spec: ConvSpec):
    spec = dataclasses.replace(spec.strict, dtype="float64") if spec.out_dtype != "int32" else spec
    arguments = random_arguments(spec, seed=2)
    axes = (0, 2, 3, 1) if spec.data_format == "NCHW" else (0, 1, 2, 3)
    flat = {
        name: array.reshape(spec.batch, *array.shape[-3:]).transpose(axes)
        if name in ("data", "residual")
        else array
        for name, array in arguments.items()
    }
    four = dataclasses.replace(spec, input_shape=flat["data"].shape, data_format="NHWC")
    expected = conv(four, **flat)
    got = conv(spec, **arguments)
    assert got.shape == spec.output_shape
    assert got.dtype == (np.int32 if spec.out_dtype == "int32" else np.float64)
    got = got.reshape(spec.batch, *spec.output_shape[-3:]).transpose(axes)
    np.testing.assert_array_equal(got, expected)


def tensorflow_calls(*dtypes: str) -> st.SearchStrategy[Call]:
    """Draw what TensorFlow's CPU functions have: NHWC, equal depthwise strides, no epilogue."""

    def simplify(call: Call) -> Call:
        # It reshapes to [-1, height, width, channels]: an empty image leaves the -1 undetermined.
        leading = call.leading if min(call.size) else call.leading[:1]
        return dataclasses.replace(
            call,
            leading=leading,
            data_format="NHWC",
            bias=False,
            residual=False,
            residual_channels=None,
            activation=None,
        )

    def computes(call: Call) -> bool:
        # It does dilation by VALID convolution of interleaved parts, which an empty image fails.
        dilated = call.op == "depthwise_conv2d" and max(call.dilations) > 1
        return not (dilated and min(call.size) == 0)

    calls = legal_calls(dtypes=dtypes, equal_depthwise_strides=True)
    return calls.map(simplify).filter(computes)


def run_tensorflow(call: Call, data: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Pass the padding as it was written, so that its resolution is compared as well."""
    strides, dilations = call.strides, call.dilations
    return tensorflow_oracle.run(
        call.op,
        data,
        window,
        strides=strides if call.op == "conv2d" else [1, *strides, 1],
        padding=call.padding_argument("NHWC"),
        dilations=dilations,
    )


@settings(max_examples=150, deadline=None)
@given(tensorflow_calls("float32", "float64"))
def test_agrees_with_tensorflow(call: Call):
    spec = call.spec()
    arguments = random_arguments(spec, seed=3)
    out = run_tensorflow(call, arguments["data"], arguments["filter"])
    check(spec, arguments, out)


@settings(max_examples=80, deadline=None)
@given(tensorflow_calls("float16", "bfloat16", "int32"), st.booleans())
def test_agrees_with_tensorflow_exactly_on_whole_numbers(call: Call, wrap: bool):
    """TensorFlow's depthwise sums in the half precisions; sums of few small integers are exact."""
    spec = call.spec()
    if call.dtype == "int32":
        arguments = random_arguments(spec, seed=4, wrap=wrap)
    else:
        rng = np.random.default_rng(4)
        arguments = {
            name: rng.choice([-2, -1, 1, 2], shape).astype(numpy_dtype(call.dtype))
            for name, shape in (("data", spec.input_shape), ("filter", spec.filter_shape))
        }
    out = run_tensorflow(call, arguments["data"], arguments["filter"])
    np.testing.assert_array_equal(out, conv(spec, **arguments).astype(out.dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_of_tensorflow_are_rounded_float32_sums(dtype):
    spec = ConvSpec.conv2d((1, 7, 7, 32), (3, 3, 32, 16), dtype=dtype)
    arguments = random_arguments(spec, seed=5)
    tf_out = tensorflow_oracle.run("conv2d", **arguments, strides=1, padding="SAME")
    check(spec, arguments, tf_out)


def test_int32_wraps():
    spec = ConvSpec.conv2d((1, 1, 1, 2), (1, 1, 2, 1), dtype="int32", bias=True, activation="relu")
    data = np.array([2**31 - 1, 2**31 - 1], np.int32).reshape(1, 1, 1, 2)
    window = np.array([2**31 - 1, 2], np.int32).reshape(1, 1, 2, 1)
    # (2**31 - 1)**2 + 2 * (2**31 - 1) = 2**62 - 1, which is -1 modulo 2**32.
    assert conv(spec, data, window, np.array([8], np.int32)).item() == 7
    assert conv(spec, data, window, np.array([0], np.int32)).item() == 0


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"data": DATA[0]}, "data"),
        ({"filter": FILTER[0]}, "filter"),
        ({"bias": np.ones(1)}, "bias"),
        ({"residual": DATA}, "residual"),
    ],
)
def test_oracle_refuses_arrays_that_do_not_fit(arguments, names):
    with pytest.raises(ValueError, match=f"{BY_HAND.key} takes {names}"):
        conv(BY_HAND, **{"data": DATA, "filter": FILTER, **arguments})


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8"])
def test_what_lies_within_the_bounds_is_right_and_what_is_wrong_does_not(dtype):
    spec = ConvSpec.conv2d((1, 6, 6, 8), (3, 3, 8, 8), dtype=dtype)
    expected = conv(spec, **random_arguments(spec, 0))
    low, high = within(spec, expected)

    dtype = spec.out_dtype
    assert low.dtype == high.dtype == numpy_dtype(dtype)
    if dtype != "float16":  # whose bounds are hardly wider than its rounding
        assert (low <= expected.astype(dtype)).all()
        assert (expected.astype(dtype) <= high).all()
    room = low <= high
    for edge in (low, high):
        inside = np.where(room, edge, expected.astype(dtype))
        assert max_error(spec, expected, inside).count == 0
    for step in (-1, 1):
        off = expected.astype(dtype)
        off[0, 0, 0, 0] += step * (1 if dtype == "int32" else 0.1)
        assert max_error(spec, expected, off).count == 1
        assert not ((low <= off) & (off <= high)).all()
    assert not (low <= np.full_like(low, -1 if dtype == "int32" else np.nan)).all()
