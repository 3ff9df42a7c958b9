"""From a model's scales and zero points to what a quantised kernel takes (see `problem.quantized`)."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tvmconv.problem import quantized
from tvmconv.problem.spec import ConvSpec

Array = npt.NDArray[Any]
# Of a floating-point clamp: (lowest, highest) number.
CLAMPS: Final[dict[str | None, tuple[float, float]]] = {
    None: (-np.inf, np.inf),
    "relu": (0.0, np.inf),
    "relu6": (0.0, 6.0),
}


@dataclasses.dataclass(frozen=True)
class Quantization:
    """Scales and zero points of one layer.

    Attributes:
        input_scale, output_scale: of data and output; positive.
        input_zero_point, output_zero_point: bytes that stand for zero.
        filter_scale: of all output channels, or an array of one scale each; positive.
        activation: None, relu or relu6, which is a clamp of the output's bytes.
    """

    input_scale: float
    input_zero_point: int
    filter_scale: float | Array
    output_scale: float
    output_zero_point: int
    activation: str | None = None

    def constants(self, spec: ConvSpec, w: Array, bias: Array | None = None) -> dict[str, Array]:
        """Return the keyword arguments of `Kernel.bind` for a quantised spec.

        Args:
            spec: with ``quantized``, the output's dtype.
            w: int8, of ``spec.filter_shape``.
            bias: int32, of ``spec.bias_shape``, with a scale of input_scale * filter_scale; zeros by default.

        Raises:
            ValueError: a zero point that is no byte of its dtype, a scale that is not positive and finite, or
                too many scales.

        """
        channels = spec.bias_shape
        bias = np.zeros(channels, np.int32) if bias is None else bias
        return {
            "w": w,
            "bias": folded_bias(spec, w, bias, self.input_zero_point),
            quantized.SCALES: self._scales(channels),
            quantized.LIMITS: self._limits(spec.dtype, spec.out_dtype),
        }

    def _scales(self, channels: tuple[int]) -> Array:
        given = np.asarray(self.filter_scale, np.float32).reshape(-1)
        every = np.asarray([self.input_scale, self.output_scale, *given], np.float32)
        if given.size not in (1, *channels) or not np.all((every > 0) & np.isfinite(every)):
            raise ValueError(
                f"filter_scale must be one positive number or {channels[0]}, input_scale and output_scale "
                f"positive, but got {given.size} from {given.min()} to {given.max()}, {self.input_scale} "
                f"and {self.output_scale}."
            )
        # In XNNPACK's order, each step rounded to float32.
        products = np.float32(self.input_scale) * given
        scales = (products / np.float32(self.output_scale)).astype(np.float32)
        return np.ascontiguousarray(np.broadcast_to(scales, channels))

    def _limits(self, data: str, out: str) -> Array:
        for point, dtype in ((self.input_zero_point, data), (self.output_zero_point, out)):
            if not np.iinfo(dtype).min <= point <= np.iinfo(dtype).max:
                raise ValueError(f"a zero point of {dtype} must be one, but got {point}.")
        low, high = clamp(self.activation, self.output_scale, self.output_zero_point, out)
        return np.asarray(
            [self.input_zero_point, self.output_zero_point, low, high], quantized.LIMITS_DTYPE
        )


def clamp(activation: str | None, scale: float, zero_point: int, dtype: str) -> tuple[int, int]:
    """Return the lowest and the highest byte that ``activation`` leaves in an output of that scale."""
    limits = np.iinfo(dtype)
    low, high = (
        zero_point + np.rint(np.float32(end) / np.float32(scale)) for end in CLAMPS[activation]
    )
    return int(max(low, limits.min)), int(min(high, limits.max))


def folded_bias(spec: ConvSpec, w: Array, bias: Array, zero_point: int) -> Array:
    """Return bias less ``zero_point`` times the sum of each channel's filter, as int32, which wraps."""
    axes = (0, 1) if spec.op == "depthwise_conv2d" else (0, 1, 2)
    sums = w.astype(np.int64).sum(axis=axes).reshape(spec.bias_shape)
    folded: Array = bias.astype(np.int64) - zero_point * sums
    return folded.astype(np.int32)
