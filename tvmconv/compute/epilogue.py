"""What happens to a finished sum: bias, residual, activation, one rounding; or scaling to bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import te, tirx

from tvmconv.problem import quantized
from tvmconv.problem.rules import PRELU
from tvmconv.problem.spec import ConvSpec

# Added to a float32 of magnitude below 2**22 it leaves no bit behind the point: the sum is rounded to
# nearest, halves to even, and its lowest bits are the integer in two's complement. Its own lowest byte is 0.
_ROUNDING = 1.5 * 2.0**23


def relu(x: Any, dtype: str) -> Any:
    """0 where x is below it, else x: NaN stays NaN, which a GPU's maximum would drop.

    One instruction on x86 (MAXPS takes its second operand where no comparison holds), and two on ARM (FCMLT
    and BIC in place of FMAXNM) and on a GPU (FSETP and FSEL).
    """
    zero = tirx.const(0, dtype)
    return tirx.Select(x < zero, zero, x)


def relu6(x: Any, dtype: str) -> Any:
    """6 where relu(x) is above it, NaN for NaN."""
    six, value = tirx.const(6, dtype), relu(x, dtype)
    return tirx.Select(six < value, six, value)


def sigmoid(x: Any, dtype: str) -> Any:
    """1 / (1 + exp(-x))."""
    one = tirx.const(1, dtype)
    return one / (one + tirx.exp(-x))


def hard_sigmoid(x: Any, dtype: str) -> Any:
    """relu6(x + 3) / 6, as Keras 3 defines it."""
    return relu6(x + tirx.const(3, dtype), dtype) * tirx.const(1 / 6, dtype)


ACTIVATIONS: dict[str | None, Callable[[Any, str], Any]] = {
    None: lambda x, dtype: x,
    "relu": relu,
    "relu6": relu6,
    "sigmoid": sigmoid,
    "silu": lambda x, dtype: x * sigmoid(x, dtype),
    "hard_sigmoid": hard_sigmoid,
    "hard_swish": lambda x, dtype: x * hard_sigmoid(x, dtype),
}


def prelu(x: Any, slope: Any, dtype: str) -> Any:
    """X where it is above 0, else x times the slope; NaN for NaN."""
    return tirx.Select(x > tirx.const(0, dtype), x, x * slope)


def narrowed(spec: ConvSpec, out_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the residual, where ``out_shape`` is the output's, with channels in their place."""
    if spec.data_format == "NCHW":
        return (out_shape[0], spec.residual_shape[-3], *out_shape[2:])
    return (*out_shape[:-1], spec.residual_shape[-1])


def epilogue_arguments(spec: ConvSpec, out_shape: tuple[int, ...]) -> tuple[te.Tensor, ...]:
    """Return the placeholders that ``spec`` asks for, in the kernel's order."""
    out = spec.out_dtype
    wanted = {
        "bias": (spec.bias_shape, spec.bias_dtype) if spec.bias else None,
        "residual": (narrowed(spec, out_shape), out) if spec.residual else None,
        "slopes": (spec.slopes_shape, out) if spec.slopes else None,
    }
    if spec.quantized is not None:
        wanted[quantized.SCALES] = (spec.bias_shape, quantized.SCALES_DTYPE)
        wanted[quantized.LIMITS] = (quantized.LIMITS_SHAPE, quantized.LIMITS_DTYPE)
    return tuple(
        te.placeholder(*each, name=name) for name, each in wanted.items() if each is not None
    )


def epilogue(
    spec: ConvSpec,
    value: Any,
    channel: Any,
    position: tuple[Any, ...],
    extra: tuple[te.Tensor, ...],
) -> Any:
    """Return activation(value + bias[channel] + residual[position]) in the output's dtype.

    ``value`` is in the accumulator's dtype; everything up to the last rounding stays in it.
    """
    if spec.quantized is not None:
        return _scaled(spec, value, channel, *extra)
    tensors = list(extra)
    if spec.bias:
        value = value + tensors.pop(0)[channel].astype(spec.accumulator_dtype)
    if spec.residual:
        addend = tensors.pop(0)[position].astype(spec.accumulator_dtype)
        if spec.residual_channels is not None:
            zero = tirx.const(0, spec.accumulator_dtype)
            addend = te.if_then_else(channel < spec.residual_channels, addend, zero)
        value = value + addend
    if spec.activation == PRELU:
        slope = tensors.pop(0)[channel].astype(spec.accumulator_dtype)
        return prelu(value, slope, spec.accumulator_dtype).astype(spec.out_dtype)
    return ACTIVATIONS[spec.activation](value, spec.accumulator_dtype).astype(spec.out_dtype)


def border(spec: ConvSpec, extra: tuple[te.Tensor, ...]) -> Any:
    """Return what stands for zero around a quantised image, in the data's dtype; None for zero itself."""
    if spec.quantized is None:
        return None
    return extra[-1][quantized.INPUT_ZERO_POINT].astype(spec.dtype)


def _scaled(
    spec: ConvSpec,
    value: Any,
    channel: Any,
    bias: te.Tensor,
    scales: te.Tensor,
    limits: te.Tensor,
) -> Any:
    """Return a byte of a sum as `problem.quantized` says."""
    zero = limits[quantized.ZERO_POINT]
    low, high = (
        (limits[each] - zero).astype("float32") for each in (quantized.LOW, quantized.HIGH)
    )
    value = (value + bias[channel]).astype("float32") * scales[channel]
    return to_byte(value, low, high, zero, spec.out_dtype)


def to_byte(value: Any, low: Any, high: Any, zero: Any, dtype: str) -> Any:
    """Return clamp(round(value), low, high) + zero, a byte; all but ``zero``, an int32, are float32.

    It is clamped before it is rounded, which is the same since the limits are whole, and one instruction
    each; then the byte is the lowest of the number that `_ROUNDING` was added to. NaN becomes ``low``.
    """
    value = tirx.min(tirx.max(value, low), high) + tirx.const(_ROUNDING, "float32")
    return (tirx.reinterpret("int32", value) + zero).astype(dtype)
