"""The problem that a kernel solves: one validated TensorFlow convolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from tvmconv.problem.arguments import window_extent
from tvmconv.problem.fields import FilterShape, Pads, Pair
from tvmconv.problem.keys import KEY_FORM, parse_key, spell_key
from tvmconv.problem.quantized import LIMITS_DTYPE, LIMITS_SHAPE, SCALES_DTYPE
from tvmconv.problem.rules import (
    BYTE_DTYPES,
    ITEM_BYTES,
    PRELU,
    TF32,
    canonical_fields,
    check_fields,
    image_extents,
    summed_in,
)


@dataclass(frozen=True)
class ConvSpec:
    """One convolution with every shape, rate and type fixed; see the two class methods.

    With ``G = groups`` and ``g = k // (out_channels / G)``, conv2d is (per image of the batch)

        conv[i, j, k] = sum over di, dj, q of
            input[sh*i + dh*di - top, sw*j + dw*dj - left, g*CI + q] * filter[di, dj, q, k]

    and depthwise_conv2d, with multiplier M and q in 0..M-1,

        conv[i, j, k*M + q] = sum over di, dj of
            input[sh*i + dh*di - top, sw*j + dw*dj - left, k] * filter[di, dj, k, q]

    The epilogue is ``out = activation(conv + bias + residual)``: first the bias (one value per
    output channel), then the residual (shape of the output, or its first channels), then the
    activation: relu, relu6, hard_swish (x * relu6(x + 3) / 6), silu (x * sigmoid(x)), sigmoid,
    hard_sigmoid (relu6(x + 3) / 6), or prelu (x where x > 0, else x times the slope of its output
    channel). float16 and bfloat16 accumulate and run their epilogue in float32 and round once, at
    the end. Integers wrap on overflow and have only relu and relu6. Sums of bytes that are scaled to
    bytes again are the subject of `tvmconv.problem.quantized`.

    Padding is stored resolved: SAME and the explicit padding equal to it are the same problem, so
    the same spec with the same key.

    Attributes:
        op: ``"conv2d"`` or ``"depthwise_conv2d"``.
        input_shape: in ``data_format`` order. conv2d takes rank >= 4, where all leading dimensions
            together are the batch; depthwise_conv2d takes rank 4.
        filter_shape: (height, width, in_channels / groups, out_channels), for depthwise
            (height, width, in_channels, multiplier), whatever ``data_format`` is.
        strides: (height, width) in pixels. Unequal depthwise strides, which TensorFlow's CPU kernel
            refuses, are allowed.
        pads: (top, bottom, left, right) in pixels.
        dilations: (height, width) in pixels.
        data_format: ``"NHWC"`` or ``"NCHW"``; int32 has only NHWC.
        dtype: of input, filter, bias, residual and output: float16, bfloat16, float32, float64 or,
            for conv2d, int32. An int8 or uint8 input has an int8 filter; bias, residual and output
            are int32.
        bias: whether a bias of `bias_shape` is added.
        activation: one of ``tvmconv.problem.rules.ACTIVATIONS``, ``"prelu"``, which takes slopes of
            `slopes_shape`, or None.
        residual: whether a residual of `residual_shape` is added.
        tf32: whether the products of a float32 conv2d may be those of operands rounded to TF32, to 10
            bits behind the point (PyTorch's ``allow_tf32``); sums and epilogue stay in float32. Tensor
            cores need it to take float32. It permits: where a kernel has no use for it, the result is
            that of float32.
        quantized: the dtype, int8 or uint8, to which the sums of an int8 or uint8 input are scaled, as
            `tvmconv.problem.quantized` says; None for int32 sums.
        residual_channels: channels of a residual that has fewer than the output, which is then added to the
            first so many; None: it has all.

    Raises:
        ValueError: an illegal value, by the rules of TensorFlow's graph mode.
        TypeError: a value of a wrong type, or a dtype that the operator does not have.

    """

    op: str
    input_shape: tuple[int, ...]
    filter_shape: FilterShape
    strides: Pair
    pads: Pads
    dilations: Pair
    data_format: str
    dtype: str
    bias: bool = False
    activation: str | None = None
    residual: bool = False
    tf32: bool = False
    quantized: str | None = None
    residual_channels: int | None = None

    @classmethod
    def conv2d(
        cls,
        input_shape: object,
        filter_shape: object,
        strides: object = 1,
        padding: object = "SAME",
        data_format: object = "NHWC",
        dilations: object = 1,
        dtype: object = "float32",
        bias: bool = False,
        activation: str | None = None,
        residual: bool = False,
        tf32: bool = False,
        quantized: str | None = None,
        residual_channels: int | None = None,
    ) -> ConvSpec:
        """Describe ``tf.nn.conv2d(input, filters, strides, padding, ...)``.

        Args:
            input_shape: rank >= 4, in ``data_format`` order.
            filter_shape: (height, width, in_channels / groups, out_channels).
            strides: None, an int, or 1, 2 (height, width) or 4 (``data_format`` order) ints.
            padding: ``"SAME"``, ``"VALID"``, or 4 pairs in ``data_format`` order.
            data_format: ``"NHWC"``, ``"NCHW"`` or None (NHWC).
            dilations: in the forms of ``strides``.
            dtype: a name, ``np.dtype``, ``tf.DType`` or NumPy scalar type.
            bias: whether to add a bias.
            activation: one of ``ACTIVATIONS``, ``"prelu"`` or None.
            residual: whether to add a residual.
            tf32: whether operands of dtype float32 may be rounded to TF32.
            quantized: the output's dtype where bytes become bytes.
            residual_channels: of a residual with fewer channels than the output, else None.

        """
        fields = canonical_fields(
            "conv2d", input_shape, filter_shape, strides, padding, data_format, dilations, dtype
        )
        return cls(
            "conv2d", *fields, bias, activation, residual, tf32, quantized, residual_channels
        )

    @classmethod
    def depthwise_conv2d(
        cls,
        input_shape: object,
        filter_shape: object,
        strides: object = 1,
        padding: object = "SAME",
        data_format: object = "NHWC",
        dilations: object = 1,
        dtype: object = "float32",
        bias: bool = False,
        activation: str | None = None,
        residual: bool = False,
        quantized: str | None = None,
        residual_channels: int | None = None,
    ) -> ConvSpec:
        """Describe ``tf.nn.depthwise_conv2d``, with the keywords and forms of `conv2d`.

        The differences: the input has rank 4, the filter is (height, width, in_channels,
        multiplier), there is no int32 input and no ``tf32`` (a sum over one channel has no use for tensor
        cores), and a stride above 1 together with a dilation above 1 is a ``ValueError`` (TensorFlow warns
        and computes something else).
        """
        op = "depthwise_conv2d"
        fields = canonical_fields(
            op, input_shape, filter_shape, strides, padding, data_format, dilations, dtype
        )
        return cls(
            op,
            *fields,
            bias,
            activation,
            residual,
            quantized=quantized,
            residual_channels=residual_channels,
        )

    @classmethod
    def from_key(cls, key: str) -> ConvSpec:
        """Return the spec that ``key`` spells; ``ValueError`` when there is none."""
        fields = parse_key(key)
        try:
            return cls(**fields)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{key!r} describes no legal convolution: {error} The form of a key is {KEY_FORM}."
            ) from error

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def key(self) -> str:
        """The spec as one line of lower-case letters, digits and underscores, a C identifier.

        It is the test id, log key and kernel name; `from_key` reads it back.
        """
        return spell_key(self)

    @property
    def precision(self) -> str:
        """The dtype as `key` spells it: ``tf32`` where products may be rounded so, else ``dtype``."""
        return TF32 if self.tf32 else self.dtype

    @property
    def strict(self) -> ConvSpec:
        """The same convolution without the permission `tf32`."""
        return replace(self, tf32=False) if self.tf32 else self

    @property
    def core_key(self) -> str:
        """The key of the same convolution without an epilogue, with which `key` begins."""
        return self.core.key

    @property
    def core(self) -> ConvSpec:
        """The same convolution without an epilogue."""
        return replace(
            self,
            bias=False,
            activation=None,
            residual=False,
            quantized=None,
            residual_channels=None,
        )

    @property
    def batch(self) -> int:
        """Images in the input: the product of all leading dimensions."""
        return prod(self.input_shape[:-3])

    @property
    def in_height(self) -> int:
        """Input rows, without padding."""
        return image_extents(self.input_shape, self.data_format)[0]

    @property
    def in_width(self) -> int:
        """Input columns, without padding."""
        return image_extents(self.input_shape, self.data_format)[1]

    @property
    def in_channels(self) -> int:
        """Channels of the input, over all groups."""
        return image_extents(self.input_shape, self.data_format)[2]

    @property
    def kernel_height(self) -> int:
        """Rows of the filter, without dilation."""
        return self.filter_shape[0]

    @property
    def kernel_width(self) -> int:
        """Columns of the filter, without dilation."""
        return self.filter_shape[1]

    @property
    def multiplier(self) -> int:
        """Output channels per input channel of a depthwise convolution; 1 for conv2d."""
        return self.filter_shape[3] if self.op == "depthwise_conv2d" else 1

    @property
    def groups(self) -> int:
        """Groups of channels that do not mix: in_channels for depthwise."""
        if self.op == "depthwise_conv2d":
            return self.in_channels
        return self.in_channels // self.filter_shape[2]

    @property
    def out_height(self) -> int:
        """Output rows."""
        top, bottom, _, _ = self.pads
        extent = window_extent(self.kernel_height, self.dilations[0])
        return (self.in_height + top + bottom - extent + self.strides[0]) // self.strides[0]

    @property
    def out_width(self) -> int:
        """Output columns."""
        _, _, left, right = self.pads
        extent = window_extent(self.kernel_width, self.dilations[1])
        return (self.in_width + left + right - extent + self.strides[1]) // self.strides[1]

    @property
    def out_channels(self) -> int:
        """Channels of the output, over all groups."""
        if self.op == "depthwise_conv2d":
            return self.in_channels * self.multiplier
        return self.filter_shape[3]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The output's shape in ``data_format`` order, with the input's leading dimensions."""
        image = (self.out_height, self.out_width, self.out_channels)
        if self.data_format == "NCHW":
            image = (self.out_channels, self.out_height, self.out_width)
        return (*self.input_shape[:-3], *image)

    @property
    def bias_shape(self) -> tuple[int]:
        """(out_channels,), whether there is a bias or not."""
        return (self.out_channels,)

    @property
    def residual_shape(self) -> tuple[int, ...]:
        """The residual's shape in ``data_format`` order, whether there is one or not."""
        *leading, a, b, c = self.output_shape
        if self.residual_channels is None:
            return self.output_shape
        if self.data_format == "NCHW":
            return (*leading, self.residual_channels, b, c)
        return (*leading, a, b, self.residual_channels)

    @property
    def slopes(self) -> bool:
        """Whether the activation takes slopes."""
        return self.activation == PRELU

    @property
    def slopes_shape(self) -> tuple[int]:
        """(out_channels,), whether there are slopes or not."""
        return (self.out_channels,)

    @property
    def is_empty(self) -> bool:
        """Whether the output has no elements, so that there is nothing to compute."""
        return prod(self.output_shape) == 0

    @property
    def filter_dtype(self) -> str:
        """The dtype of the filter: int8 for an input of 8 bits, else ``dtype``."""
        return "int8" if self.dtype in BYTE_DTYPES else self.dtype

    @property
    def out_dtype(self) -> str:
        """The dtype of residual and output: int32 for an input of 8 bits that is not `quantized`."""
        return self.quantized or self.bias_dtype

    @property
    def bias_dtype(self) -> str:
        """The dtype of the bias: int32 for an input of 8 bits, else ``dtype``."""
        return "int32" if self.dtype in BYTE_DTYPES else self.dtype

    @property
    def accumulator_dtype(self) -> str:
        """The dtype of sums and epilogue: float32 for the half precisions, else ``bias_dtype``."""
        return summed_in(self.bias_dtype)

    @property
    def reduction_length(self) -> int:
        """Products summed into one output element, those with padding included."""
        kernel_height, kernel_width, group_channels, _ = self.filter_shape
        taps = kernel_height * kernel_width
        return taps if self.op == "depthwise_conv2d" else taps * group_channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates, those with padding included."""
        return prod(self.output_shape) * self.reduction_length

    @property
    def needed_macs(self) -> int:
        """Multiply-accumulates without those of taps in the padding, which kernels may skip."""
        height, width = self.out_height, self.out_width
        taps = self.kernel_height * self.kernel_width
        if self.macs == 0:
            return 0
        top, _, left, _ = self.pads
        rows = _inside(
            height, self.in_height, self.kernel_height, self.strides[0], self.dilations[0], top
        )
        columns = _inside(
            width, self.in_width, self.kernel_width, self.strides[1], self.dilations[1], left
        )
        return self.macs // (height * width * taps) * rows * columns

    @property
    def flops(self) -> int:
        """Two per multiply-accumulate; the epilogue is not counted."""
        return 2 * self.macs

    @property
    def bytes(self) -> int:
        """Bytes of input, filter, output and what else there is, each once."""
        results = prod(self.output_shape) + self.slopes * self.out_channels
        results += self.residual * prod(self.residual_shape)
        scaling = (
            self.out_channels * ITEM_BYTES[SCALES_DTYPE]
            + prod(LIMITS_SHAPE) * ITEM_BYTES[LIMITS_DTYPE]
        )
        return (
            prod(self.input_shape) * ITEM_BYTES[self.dtype]
            + prod(self.filter_shape) * ITEM_BYTES[self.filter_dtype]
            + results * ITEM_BYTES[self.out_dtype]
            + self.bias * self.out_channels * ITEM_BYTES[self.bias_dtype]
            + (self.quantized is not None) * scaling
        )


def _inside(outputs: int, size: int, taps: int, stride: int, dilation: int, before: int) -> int:
    """Pairs of an output and a tap that lies inside of the input, along one dimension."""
    pairs = 0
    for tap in range(taps):
        first = max(0, -(-(before - tap * dilation) // stride))
        last = (size - 1 + before - tap * dilation) // stride
        pairs += max(0, min(last, outputs - 1) - first + 1)
    return pairs
