"""The oracle of quantised convolutions, against its definition in exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import quantized_specs

from tvmconv.checking.oracle import conv, random_arguments, tolerance_of, within
from tvmconv.problem.spec import ConvSpec

# One pixel of one channel times 1: the sum is the data and the bias.
ONE = ConvSpec.conv2d((1, 1, 1, 1), (1, 1, 1, 1), dtype="int8", bias=True, quantized="int8")


def scaled(total: int, scale: float, limits: tuple[int, int, int, int], out: str = "int8") -> int:
    spec = ConvSpec.conv2d((1, 1, 1, 1), (1, 1, 1, 1), dtype="int8", bias=True, quantized=out)
    made = conv(
        spec,
        np.zeros((1, 1, 1, 1), np.int8),
        np.ones((1, 1, 1, 1), np.int8),
        bias=np.array([total], np.int32),
        scales=np.array([scale], np.float32),
        limits=np.array(limits, np.int32),
    )
    assert made.dtype == out
    return int(made[0, 0, 0, 0])


def by_definition(total: int, scale: float, limits: tuple[int, int, int, int]) -> int:
    """float32 of the sum, times float32, rounded to float32, then to nearest, halves to even."""
    exact = Fraction(float(np.float32(total))) * Fraction(float(np.float32(scale)))
    product = Fraction(
        float(np.float32(float(exact)))
    )  # a product of two float32 is exact in float64
    return min(max(round(product) + limits[1], limits[2]), limits[3])


ANY_SCALE = st.floats(2.0**-31, 300, width=32)
BYTES = st.integers(-128, 127)


@settings(deadline=None)
@given(st.integers(-(2**31), 2**31 - 1), ANY_SCALE, BYTES, BYTES, BYTES)
def test_scaling_is_the_definition(total, scale, zero, one, other):
    limits = (0, zero, min(one, other), max(one, other))
    assert scaled(total, scale, limits) == by_definition(total, scale, limits)


@pytest.mark.parametrize(
    ("total", "scale", "zero", "expected"),
    [
        (1, 0.5, 0, 0), (3, 0.5, 0, 2), (5, 0.5, 0, 2), (-1, 0.5, 0, 0), (-3, 0.5, 0, -2),  # halves
        (1, 0.5, 7, 7), (3, 0.5, 7, 9),  # to even before the zero point is added
        (2**31 - 1, 2.0**-31, 0, 1), (-(2**31), 2.0**-31, 0, -1),
        (2**31 - 1, 1.5, 0, 127), (-(2**31), 1.5, 0, -128),
        (2**31 - 1, 3e38, 0, 127), (-(2**31), 3e38, 5, -128),
        (0, 1.0, -128, -128), (0, 1.0, 127, 127), (100, 1.0, 127, 127), (-100, 1.0, -128, -128),
    ],
)  # fmt: skip
def test_ends(total, scale, zero, expected):
    assert scaled(total, scale, (0, zero, -128, 127)) == expected


def test_unsigned_bytes():
    assert scaled(200, 1.0, (0, 0, 0, 255), "uint8") == 200
    assert scaled(200, 1.0, (0, 100, 3, 250), "uint8") == 250
    assert scaled(-200, 1.0, (0, 100, 3, 250), "uint8") == 3


def test_around_the_image_stands_the_zero_point():
    spec = ConvSpec.conv2d((1, 1, 1, 1), (3, 3, 1, 1), dtype="uint8", bias=True, quantized="uint8")
    made = conv(
        spec,
        np.full((1, 1, 1, 1), 10, np.uint8),
        np.ones((3, 3, 1, 1), np.int8),
        bias=np.array([-9 * 7], np.int32),  # the zero point, folded in
        scales=np.ones(1, np.float32),
        limits=np.array([7, 0, 0, 255], np.int32),
    )
    assert made.ravel() == [10 - 7]


@settings(max_examples=30, deadline=None)
@given(quantized_specs(empty=False), st.integers(0, 99))
def test_random_arguments_reach_the_limits_and_what_lies_between(spec, seed):
    arguments = random_arguments(spec, seed)
    _, zero, low, high = arguments["limits"]
    made = conv(spec, **arguments)

    assert np.iinfo(spec.out_dtype).min <= low <= zero or low <= high
    assert low <= made.min() <= made.max() <= high
    assert arguments["scales"].dtype == np.float32
    assert tolerance_of(spec) == (0.0, 0.0)
    assert within(spec, made)[0] is made


def test_random_arguments_of_a_layer_give_all_kinds_of_bytes():
    spec = ConvSpec.conv2d((1, 9, 9, 32), (3, 3, 32, 64), dtype="int8", bias=True, quantized="int8")
    arguments = random_arguments(spec, seed=0)
    made = conv(spec, **arguments)
    assert len(np.unique(made)) > 200


@pytest.mark.parametrize("missing", ["scales", "limits", "bias"])
def test_what_is_missing_is_named(missing):
    arguments = random_arguments(ONE, seed=0)
    del arguments[missing]
    with pytest.raises(ValueError, match=f"takes {missing} of shape"):
        conv(ONE, **arguments)
