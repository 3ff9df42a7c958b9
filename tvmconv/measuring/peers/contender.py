"""What each library's module makes of a layer, and how a layer is presented to it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmconv.checking import oracle
from tvmconv.errors import TvmconvError
from tvmconv.problem.spec import ConvSpec

Array = npt.NDArray[Any]

# What Winograd's largest tiles are off by at most, on outputs of about 1; bfloat16 is off by 1e-2.
_MOST_WRONG = 1e-3
# Of a library's own steps from byte to byte: rounding is off by half a one, a filter scaled anew by more.
_MOST_STEPS = 3.0


class WrongPeerError(TvmconvError):
    """A library computes wrong values here."""


class UnsupportedLayerError(TvmconvError):
    """A library has no such operator, or not with these arguments."""


@dataclass(frozen=True)
class Prepared:
    """A layer with its weights in place.

    Attributes:
        call: one convolution, as a user of the library would run it, with input and output bound.
        result: the output of the last call, in the spec's shape.
        step: of libraries that scale the sums of bytes to bytes again, the sum that a unit of their
            output stands for; 0 for others.
    """

    call: Callable[[], object]
    result: Callable[[], Array]
    step: float = 0.0


def check(
    spec: ConvSpec, arguments: dict[str, Array], prepared: Prepared, peer: str | None, why: str = ""
) -> None:
    """Call a layer once, and compare its values with the oracle's.

    Raises BuildError where our own kernel (``peer`` is None) is wrong; WrongPeerError, with the reason
    ``why`` if one is known, where a library is. Libraries may be off by as much as Winograd's largest tiles,
    or their rounding.
    """
    prepared.call()
    expected, out = oracle.conv(spec, **arguments), prepared.result()
    if peer is None:
        oracle.assert_close(spec, expected, out)
        return
    bound = (_MOST_WRONG, max(_MOST_WRONG, _MOST_STEPS * prepared.step))
    worst = oracle.max_error(spec, expected, out, bound)
    if worst.count:
        raise WrongPeerError(
            f"{peer} computes wrong values{f', since {why}' if why else ''}: {worst.count} of {out.size} of "
            f"{spec.key}, the worst {worst.got:.6g} for {worst.expected:.6g}"
        )


def seconds(
    call: Callable[[], object],
    least_ms: float,
    of: Callable[[list[float]], float] = statistics.median,
) -> float:
    """Median time, or another ``of`` them, of three calls or as many as fill ``least_ms``."""
    times: list[float] = []
    begin = now = perf_counter()
    while now - begin < least_ms / 1e3 or len(times) < 3:
        before = perf_counter()
        call()
        now = perf_counter()
        times.append(now - before)
    return of(times)


def summed(spec: ConvSpec, out: Array, step: float, zero: int) -> Array:
    """Sums as int32 from a library's bytes."""
    return np.rint((out.astype(np.float64) - zero) * step).astype(spec.out_dtype)


def plain(spec: ConvSpec) -> ConvSpec:
    """The convolution alone: not every library fuses every epilogue."""
    return spec.core


def padding_of(spec: ConvSpec) -> str | None:
    """``SAME`` or ``VALID`` where that means the spec's padding, else None."""
    for padding in ("VALID", "SAME"):
        make = ConvSpec.conv2d if spec.op == "conv2d" else ConvSpec.depthwise_conv2d
        other = make(
            spec.input_shape,
            spec.filter_shape,
            spec.strides,
            padding,
            spec.data_format,
            spec.dilations,
            spec.dtype,
        )
        if other.pads == spec.pads:
            return padding
    return None


def padded(spec: ConvSpec, data: Array) -> Array:
    """The input with its padding around, for libraries without asymmetric or explicit padding.

    That happens in advance, which favours them.
    """
    top, bottom, left, right = spec.pads
    return np.ascontiguousarray(np.pad(data, ((0, 0), (top, bottom), (left, right), (0, 0))))


def to_nchw(data: Array) -> Array:
    """NHWC to NCHW, contiguous."""
    return np.ascontiguousarray(data.transpose(0, 3, 1, 2))


def from_nchw(out: Array) -> Array:
    """NCHW to NHWC."""
    return out.transpose(0, 2, 3, 1)


def oihw(spec: ConvSpec, filter: Array) -> Array:
    """The filter as (output channels, input channels of a group, height, width)."""
    if spec.op == "conv2d":
        return np.ascontiguousarray(filter.transpose(3, 2, 0, 1))
    height, width, channels, multiplier = spec.filter_shape
    turned = filter.transpose(2, 3, 0, 1)
    return np.ascontiguousarray(turned.reshape(channels * multiplier, 1, height, width))
