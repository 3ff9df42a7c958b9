import dataclasses
import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import legal_specs

from tvmconv.checking.oracle import (
    assert_close,
    check,
    conv,
    max_error,
    random_arguments,
    tolerance,
)
from tvmconv.errors import BuildError
from tvmconv.problem.rules import ACTIVATIONS
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime.tensors import numpy_dtype

LAYER = ConvSpec.conv2d((1, 14, 14, 256), (3, 3, 256, 64))  # sums of 2304 products


def float32_in_order(spec: ConvSpec, arguments: dict[str, np.ndarray]) -> np.ndarray:
    """An honest kernel: float32, one product after the other."""
    padded = np.pad(arguments["data"][0], ((1, 1), (1, 1), (0, 0)))
    out = np.zeros(spec.output_shape[1:], np.float32)
    for di, dj, c in itertools.product(range(3), range(3), range(spec.in_channels)):
        tap = padded[di : di + spec.out_height, dj : dj + spec.out_width, c, None]
        out += tap * arguments["filter"][di, dj, c]
    return out[None]


def test_tolerance_admits_float32_rounding_with_room_but_not_much():
    arguments = random_arguments(LAYER, seed=6)
    worst = check(LAYER, arguments, float32_in_order(LAYER, arguments))
    assert worst.count == 0
    assert worst.allowed / 40 < worst.error < worst.allowed / 4


def test_tolerance_refuses_a_lost_product_and_half_precision_sums():
    arguments = random_arguments(LAYER, seed=6)
    expected = conv(LAYER, **arguments)
    lossy = {**arguments, "filter": arguments["filter"].copy()}
    lossy["filter"][2, 2, 255, 63] = 0  # one of 147456
    with pytest.raises(BuildError, match=f"{LAYER.key}: .* values are wrong"):
        assert_close(LAYER, expected, conv(LAYER, **lossy).astype(np.float32))
    with pytest.raises(BuildError):
        assert_close(LAYER, expected, expected.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_tolerance_of_halves_is_one_rounding(dtype):
    spec = dataclasses.replace(LAYER, dtype=dtype)
    arguments = random_arguments(spec, seed=7)
    expected = conv(spec, **arguments)
    once = expected.astype(numpy_dtype(dtype))
    assert check(spec, arguments, once).count == 0
    with pytest.raises(BuildError):
        assert_close(spec, expected, np.nextafter(once, numpy_dtype(dtype).type(np.inf)))


def to_tf32(array: np.ndarray, half: int = 1 << 12) -> np.ndarray:
    return ((array.view(np.uint32) + half) & 0xFFFFE000).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("activation", [None, "relu", "hard_swish", "silu", "relu6"])
@pytest.mark.parametrize("shape", [LAYER.filter_shape, (1, 1, 256, 64), (1, 1, 1, 64)])
def test_tolerance_of_tf32_admits_rounded_operands_with_room_but_not_much(shape, activation):
    data = (*LAYER.input_shape[:3], shape[2])
    spec = ConvSpec.conv2d(data, shape, activation=activation, tf32=True)
    arguments = random_arguments(spec, seed=6)
    operands = {name: to_tf32(array) for name, array in arguments.items()}
    rounded = conv(spec, **operands).astype(np.float32)
    worst = check(spec, arguments, rounded)
    assert worst.allowed / 20 < worst.error < worst.allowed
    if shape[2] > 1:
        assert worst.error < worst.allowed / 1.5
    with pytest.raises(BuildError):
        check(spec.strict, arguments, rounded)


def test_tolerance_of_tf32_refuses_a_lost_product_cut_bits_and_bfloat16():
    spec = dataclasses.replace(LAYER, tf32=True)
    arguments = random_arguments(spec, seed=6)
    expected = conv(spec, **arguments)
    lossy = {**arguments, "filter": arguments["filter"].copy()}
    lossy["filter"][2, 2, 255, 63] = 0
    with pytest.raises(BuildError, match=f"{spec.key}: .* values are wrong"):
        assert_close(spec, expected, conv(spec, **lossy).astype(np.float32))
    cut = {name: to_tf32(array, half=0) for name, array in arguments.items()}
    with pytest.raises(BuildError):
        assert_close(spec, expected, conv(spec, **cut).astype(np.float32))
    halves = {name: array.astype(numpy_dtype("bfloat16")) for name, array in arguments.items()}
    with pytest.raises(BuildError):
        assert_close(spec, expected, conv(spec, **halves).astype(np.float32))


def test_int32_tolerance_is_exact():
    assert tolerance("int32", 100) == (0.0, 0.0)
    spec = ConvSpec.conv2d((1, 3, 3, 2), (3, 3, 2, 2), dtype="int32")
    arguments = random_arguments(spec, seed=8, wrap=True)
    out = conv(spec, **arguments)
    assert check(spec, arguments, out).error == 0
    out[0, 1, 2, 1] += 1
    worst = max_error(spec, conv(spec, **arguments), out)
    assert (worst.index, worst.error, worst.count) == ((0, 1, 2, 1), 1.0, 1)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 2.0**100])
def test_worst_element_is_found_and_named(wrong):
    spec = dataclasses.replace(LAYER, bias=True)
    arguments = random_arguments(spec, seed=9)
    out = conv(spec, **arguments).astype(np.float32)
    out[0, 3, 5, 7] = wrong
    with pytest.raises(
        BuildError, match=rf"1 of {out.size} .*\(0, 3, 5, 7\).*{re.escape(repr(wrong))}"
    ):
        check(spec, arguments, out)


def test_equal_infinities_and_nans_are_right():
    spec = ConvSpec.conv2d((1, 1, 3, 1), (1, 1, 1, 1))
    data = np.array([np.inf, np.nan, 1], np.float32).reshape(1, 1, 3, 1)
    arguments = {"data": data, "filter": np.ones((1, 1, 1, 1), np.float32)}
    assert check(spec, arguments, data).count == 0


def test_wrong_shape_or_dtype_is_refused():
    spec = ConvSpec.conv2d((1, 3, 3, 2), (3, 3, 2, 2))
    arguments = random_arguments(spec, seed=10)
    out = conv(spec, **arguments)
    with pytest.raises(BuildError, match="float64"):
        check(spec, arguments, out)
    with pytest.raises(BuildError, match=r"\(3, 3, 2\)"):
        check(spec, arguments, out[0].astype(np.float32))
    empty = ConvSpec.conv2d((0, 3, 3, 2), (3, 3, 2, 2))
    no_rows = random_arguments(empty, seed=0)
    assert check(empty, no_rows, np.zeros((0, 3, 3, 2), np.float32)).count == 0


@settings(deadline=None)
@given(legal_specs(), st.booleans())
def test_random_arguments(spec: ConvSpec, wrap: bool):
    arguments = random_arguments(spec, seed=11, wrap=wrap)
    again = random_arguments(spec, seed=11, wrap=wrap)
    assert list(arguments) == [
        "data",
        "filter",
        *["bias"] * spec.bias,
        *["residual"] * spec.residual,
        *["slopes"] * spec.slopes,
    ]
    for name, array in arguments.items():
        dtypes = {"data": spec.dtype, "filter": spec.filter_dtype}
        assert array.dtype == numpy_dtype(dtypes.get(name, spec.out_dtype))
        assert (array != 0).all()
        np.testing.assert_array_equal(array, again[name])
    out = conv(spec, **arguments)
    if spec.out_dtype != "int32":
        assert np.abs(out).max(initial=0) < 20


def test_seeds_differ():
    assert not np.array_equal(*(random_arguments(LAYER, seed)["data"] for seed in (0, 1)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_random_arguments_reach_both_ends_of_an_activation(activation):
    spec = dataclasses.replace(LAYER, activation=activation)
    before = conv(dataclasses.replace(spec, activation=None), **random_arguments(spec, seed=12))
    assert (before < -3).any()
    assert (before > (3 if activation == "relu" else 6)).any()


def test_wrapping_arguments_do_overflow():
    spec = ConvSpec.conv2d((1, 3, 3, 2), (3, 3, 2, 2), dtype="int32")
    arguments = random_arguments(spec, seed=13, wrap=True)
    exact = conv(
        dataclasses.replace(spec, dtype="float64"),
        **{name: array.astype(np.float64) for name, array in arguments.items()},
    )
    assert (np.abs(exact) > 2**31).all()
