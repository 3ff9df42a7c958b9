"""What a convolution must compute, in NumPy, written to be read; and how close a kernel must come.

The formulas are those in `ConvSpec`'s docstring, evaluated in float64 whatever the dtype is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tvmconv.errors import BuildError
from tvmconv.problem.quantized import (
    INPUT_ZERO_POINT,
    LIMITS,
    LIMITS_DTYPE,
    LIMITS_SHAPE,
    SCALES,
    SCALES_DTYPE,
)
from tvmconv.problem.rules import HALF_DTYPES
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime.tensors import numpy_dtype

Array = npt.NDArray[Any]

# Spacing of the numbers just above 1. NumPy has no bfloat16 to ask.
_EPSILON: Final = {
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
    "float32": 2.0**-23,
    "float64": 2.0**-52,
}
# An error of sqrt(n) * epsilon is about 5 standard deviations of what rounding does to a sum of n
# terms (see `tolerance`). The rest covers the steepest epilogue, `random_arguments`' scale of 3, and
# Winograd's tiles of 4 x 4, whose largest errors are up to 1.6 times a sum's.
_SAFETY: Final = 12.0
# Spacing of TF32's numbers just above 1, and the multiple of it that is allowed (see `tolerance_of`).
_TF32_EPSILON: Final = 2.0**-10
_TF32_SAFETY: Final = 3.0
# Under an activation of `_SATURATING` the filter is three times as large; hard_swish is steepest, 1.5 at 3.
_SATURATING_SCALE: Final = 3.0
_STEEPEST: Final = 1.5
_BYTE_DEVIATION: Final = 74.0  # of bytes drawn from their whole range
_SATURATING: Final = ("relu6", "hard_swish", "sigmoid", "hard_sigmoid", "silu")


def conv(
    spec: ConvSpec,
    data: Array,
    filter: Array,
    bias: Array | None = None,
    residual: Array | None = None,
    slopes: Array | None = None,
    scales: Array | None = None,
    limits: Array | None = None,
) -> Array:
    """Compute ``spec`` on arrays of its shapes.

    Returns:
        An array of ``spec.output_shape``, float64; for integers the exact result, wrapped, as int32, or as
        the bytes of a quantised spec.

    Raises:
        ValueError: an array of a wrong shape, or a bias, residual or slopes too many or missing.

    """
    given = {"data": data, "filter": filter, "bias": bias, "residual": residual, "slopes": slopes}
    _check_shapes(spec, {**given, SCALES: scales, LIMITS: limits})
    # int64 wraps too, and modulo 2**64 implies modulo 2**32.
    whole = spec.accumulator_dtype == "int32"
    wide = np.int64 if whole else np.float64
    images = _to_nhwc(spec, data).astype(wide)
    around = 0 if limits is None else int(limits[INPUT_ZERO_POINT])
    out = _sum_of_taps(spec, images, filter.astype(wide), around)
    if bias is not None:
        out += bias.astype(wide)
    if residual is not None:
        addend = _to_nhwc(spec, residual).astype(wide)
        out[..., : addend.shape[-1]] += addend
    if whole:
        out = out.astype(np.int32)
    if scales is not None and limits is not None:
        out = _scaled(out, scales, limits).astype(spec.out_dtype)
    out = activate(spec.activation, out) if slopes is None else np.where(out > 0, out, out * slopes)
    if spec.data_format == "NCHW":
        out = out.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(out.reshape(spec.output_shape))


def _scaled(sums: Array, scales: Array, limits: Array) -> Array:
    """Sums as `problem.quantized` scales them; each step but the product is exact."""
    _, zero, low, high = limits.tolist()
    with np.errstate(over="ignore"):  # an infinite one saturates
        scaled = sums.astype(np.float32) * scales.astype(np.float32)
    rounded = np.rint(scaled.astype(np.float64))  # halves to even
    return np.asarray(np.clip(rounded + zero, low, high))


def activate(activation: str | None, x: Array) -> Array:
    """Apply one of ``tvmconv.problem.rules.ACTIVATIONS``, elementwise, in the dtype of ``x``."""
    if activation is None:
        return x
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "relu6":
        return np.clip(x, 0, 6)
    if activation == "hard_sigmoid":
        return np.asarray(np.clip(x + 3, 0, 6) / 6)
    if activation == "hard_swish":
        return np.asarray(x * np.clip(x + 3, 0, 6) / 6)
    # exp of minus the absolute value cannot overflow.
    decay = np.exp(-np.abs(x))
    sigmoid = np.where(x >= 0, 1 / (1 + decay), decay / (1 + decay))
    return x * sigmoid if activation == "silu" else sigmoid


def tolerance(dtype: str, reduction_length: int) -> tuple[float, float]:
    """Return (rtol, atol) for a kernel with outputs of ``dtype``, on `random_arguments`.

    Rounding a sum of n terms, each of standard deviation 1 / sqrt(n), is a random walk: partial
    sum k has magnitude sqrt(k / n) and is off by up to half an epsilon of that, which adds up to a
    standard deviation of about 0.2 * sqrt(n) * epsilon, in whatever order the kernel sums (Higham,
    Accuracy and Stability of Numerical Algorithms, 2nd ed., section 4.2). float16 and bfloat16
    accumulate in float32 and round once more, relatively, by half of their own epsilon. Integers
    are exact.
    """
    if "int" in dtype:
        return 0.0, 0.0
    accumulated = _EPSILON["float64" if dtype == "float64" else "float32"]
    summed = _SAFETY * accumulated * sqrt(max(reduction_length, 1))
    stored = _EPSILON[dtype] / 2 if dtype in HALF_DTYPES else 0.0
    return summed + stored, summed


def tolerance_of(spec: ConvSpec) -> tuple[float, float]:
    """Return (rtol, atol) for a kernel of ``spec``, on `random_arguments`.

    That of `tolerance`, and where products may be rounded to TF32 what this does to them. An operand
    rounded to nearest is off by at most half of TF32's epsilon of 2**-10, relatively; with magnitudes spread
    over [0.5, 1.5], or over this scaled by any factor, by a standard deviation of 0.2 to 0.25 epsilons. So a
    product is off by 0.33 epsilons, of either sign, and one of n, of magnitude 1.08 / sqrt(n) (root of the
    mean square), adds 0.36 * epsilon / sqrt(n) to the sum's error: the sum is off by a standard deviation of
    0.36 epsilons, however long it is (0.31 to 0.34 where tried, and 1.5 at most in 65 536 sums). Three
    epsilons are more than eight of these, and more than one product alone can be off, 2.25. Bits cut off
    in place of rounded would shrink every product by 0.75 epsilons: outputs above 3 are then beyond that.
    """
    rtol, atol = tolerance(spec.out_dtype, spec.reduction_length)
    if not spec.tf32:
        return rtol, atol
    steep = _SATURATING_SCALE * _STEEPEST if spec.activation in _SATURATING else 1.0
    return rtol, atol + _TF32_SAFETY * _TF32_EPSILON * steep


def random_arguments(spec: ConvSpec, seed: int, wrap: bool = False) -> dict[str, Array]:
    """Draw arrays of the spec's dtypes for `conv`: data, filter and what else it has.

    No value is zero or near it, so that no product hides a wrong index. All but
    the filter have magnitudes in [0.5, 1.5] and random signs; the filter is scaled by 1 / sqrt(reduction
    length), and by 3 under an activation that saturates, so that outputs are O(1) and reach both
    ends of it. Values of 8 bits are from their whole range; those of int32 from [-9, 9], or with
    ``wrap`` from the whole range too, so that sums overflow.
    """
    rng = np.random.default_rng(seed)
    scale = _SATURATING_SCALE if spec.activation in _SATURATING else 1.0
    shapes: dict[str, tuple[tuple[int, ...], float]] = {
        "data": (spec.input_shape, 1.0),
        "filter": (spec.filter_shape, scale / sqrt(spec.reduction_length)),
    }
    if spec.bias:
        shapes["bias"] = (spec.bias_shape, 1.0)
    if spec.residual:
        shapes["residual"] = (spec.residual_shape, 1.0)
    if spec.slopes:
        shapes["slopes"] = (spec.slopes_shape, 1.0)
    dtypes = {"data": spec.dtype, "filter": spec.filter_dtype}
    if spec.accumulator_dtype == "int32":
        integers = {
            name: _integers(rng, shape, dtypes.get(name, "int32"), wrap)
            for name, (shape, _) in shapes.items()
        }
        return integers | (_scaling(rng, spec) if spec.quantized else {})
    return {
        name: (size * rng.uniform(0.5, 1.5, shape) * rng.choice((-1.0, 1.0), shape)).astype(
            numpy_dtype(spec.dtype)
        )
        for name, (shape, size) in shapes.items()
    }


def _integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, wrap: bool) -> Array:
    """Draw values other than 0: the whole range of 8 bits, of int32 [-9, 9] or with ``wrap`` all."""
    limits = np.iinfo(dtype)
    low, high = (-9, 9) if dtype == "int32" and not wrap else (limits.min, limits.max)
    drawn = rng.integers(low, high, shape)  # without the highest, which stands in for 0
    return np.where(drawn == 0, high, drawn).astype(dtype)


def _scaling(rng: np.random.Generator, spec: ConvSpec) -> dict[str, Array]:
    """Draw scales under which sums of random bytes go a little beyond the limits, and limits."""
    usual = 128 / (_BYTE_DEVIATION**2 * sqrt(spec.reduction_length))
    scales = usual * rng.uniform(0.25, 1.5, spec.bias_shape)
    data, out = np.iinfo(spec.dtype), np.iinfo(spec.out_dtype)
    limits = [
        rng.integers(data.min, data.max, endpoint=True),
        rng.integers(out.min, out.max, endpoint=True),
        out.min + rng.integers(0, 9),
        out.max - rng.integers(0, 9),
    ]
    return {SCALES: scales.astype(SCALES_DTYPE), LIMITS: np.asarray(limits, LIMITS_DTYPE)}


@dataclass(frozen=True)
class Difference:
    """How far an output is from what was expected, at its worst element.

    Attributes:
        index: of the worst element; () when the output is empty.
        got: its value.
        expected: what it should be.
        error: their absolute difference.
        allowed: atol + rtol * abs(expected) there.
        count: elements beyond their tolerance.

    """

    index: tuple[int, ...]
    got: float
    expected: float
    error: float
    allowed: float
    count: int


def max_error(
    spec: ConvSpec, expected: Array, out: Array, bound: tuple[float, float] | None = None
) -> Difference:
    """Compare ``out`` with ``expected`` from `conv`.

    The worst element is the one with the largest ratio of error to tolerance. A NaN or infinity
    where the other side has none counts as infinitely wrong.

    Args:
        spec: the problem; it gives the tolerance.
        expected: what `conv` returned.
        out: what the kernel returned.
        bound: (rtol, atol) in place of `tolerance_of`'s.

    Raises:
        BuildError: ``out`` has another shape or dtype than ``spec`` says.

    """
    if out.shape != spec.output_shape or out.dtype.name != spec.out_dtype:
        raise BuildError(
            f"{spec.key}: the output is {out.dtype.name} of shape {out.shape}, expected "
            f"{spec.out_dtype} of shape {spec.output_shape}. The kernel or its wrapper is wrong."
        )
    rtol, atol = bound or tolerance_of(spec)
    if out.size == 0:
        return Difference((), 0.0, 0.0, 0.0, atol, 0)
    got, wanted = out.astype(np.float64), expected.astype(np.float64)
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(got - wanted))
        error = np.where(np.isfinite(error), error, np.inf)
        allowed = atol + rtol * np.where(np.isfinite(wanted), np.abs(wanted), 0.0)
    # Integers allow nothing, and 0 / 0 would be NaN.
    with np.errstate(over="ignore"):
        ratio = error / np.maximum(allowed, np.finfo(np.float64).tiny)
    index = tuple(int(i) for i in np.unravel_index(np.argmax(ratio), out.shape))
    return Difference(
        index,
        float(got[index]),
        float(wanted[index]),
        float(error[index]),
        float(allowed[index]),
        int(np.count_nonzero(error > allowed)),
    )


def assert_close(
    spec: ConvSpec, expected: Array, out: Array, bound: tuple[float, float] | None = None
) -> Difference:
    """Raise ``BuildError`` unless ``out`` is within tolerance everywhere.

    Arguments and result are those of `max_error`.
    """
    worst = max_error(spec, expected, out, bound)
    if worst.count:
        raise BuildError(
            f"{spec.key}: {worst.count} of {out.size} values are wrong; the worst, at "
            f"{worst.index}, is {worst.got!r} and should be {worst.expected!r} within "
            f"{worst.allowed:.3g}, but is {worst.error:.3g} off. Do not use this kernel: its "
            "schedule or the tuning record behind it computes something else."
        )
    return worst


def within(spec: ConvSpec, expected: Array) -> tuple[Array, Array]:
    """Return the lowest and the highest right output of each element, in the output's dtype.

    Rounded inward: what lies between is right for `max_error` too, and little else is.
    """
    if "int" in spec.out_dtype:
        return expected, expected
    rtol, atol = tolerance_of(spec)
    allowed = atol + rtol * np.abs(expected)
    dtype = numpy_dtype(spec.dtype)
    low, high = (expected - allowed).astype(dtype), (expected + allowed).astype(dtype)
    return np.nextafter(low, high), np.nextafter(high, low)


def check(spec: ConvSpec, arguments: dict[str, Array], out: Array) -> Difference:
    """Compare ``out`` with `conv` of ``arguments``; ``BuildError`` when it is beyond tolerance."""
    return assert_close(spec, conv(spec, **arguments), out)


def _sum_of_taps(spec: ConvSpec, images: Array, window: Array, around: int) -> Array:
    top, bottom, left, right = spec.pads
    pads = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(images, pads, constant_values=around)
    out_height, out_width, groups = spec.out_height, spec.out_width, spec.groups
    # Depthwise is the convolution with one input channel per group; for both, group g of the
    # output channels is the g-th contiguous part of them.
    group_in, group_out = spec.in_channels // groups, spec.out_channels // groups
    pixels = spec.batch * out_height * out_width
    total = np.zeros((groups, pixels, group_out), images.dtype)
    for di in range(spec.kernel_height):
        for dj in range(spec.kernel_width):
            i, j = di * spec.dilations[0], dj * spec.dilations[1]
            tap = padded[:, i :: spec.strides[0], j :: spec.strides[1]][:, :out_height, :out_width]
            left_factor = tap.reshape(pixels, groups, group_in).transpose(1, 0, 2)
            if spec.op == "conv2d":
                right_factor = window[di, dj].reshape(group_in, groups, group_out)
                right_factor = right_factor.transpose(1, 0, 2)
            else:
                right_factor = window[di, dj].reshape(groups, 1, group_out)
            total += left_factor @ right_factor
    return total.transpose(1, 0, 2).reshape(spec.batch, out_height, out_width, spec.out_channels)


def _to_nhwc(spec: ConvSpec, array: Array) -> Array:
    array = array.reshape(-1 if array.size else spec.batch, *array.shape[-3:])
    return array.transpose(0, 2, 3, 1) if spec.data_format == "NCHW" else array


def _check_shapes(spec: ConvSpec, arrays: dict[str, Array | None]) -> None:
    shapes: dict[str, tuple[int, ...] | None] = {
        "data": spec.input_shape,
        "filter": spec.filter_shape,
        "bias": spec.bias_shape if spec.bias else None,
        "residual": spec.residual_shape if spec.residual else None,
        "slopes": spec.slopes_shape if spec.slopes else None,
        SCALES: spec.bias_shape if spec.quantized else None,
        LIMITS: LIMITS_SHAPE if spec.quantized else None,
    }
    for name, array in arrays.items():
        if (None if array is None else array.shape) != shapes[name]:
            got = "none" if array is None else f"one of shape {array.shape}"
            raise ValueError(f"{spec.key} takes {name} of shape {shapes[name]}, but got {got}.")
