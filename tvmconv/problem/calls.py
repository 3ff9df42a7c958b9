"""The problem that one call of tf.nn.conv2d or tf.nn.depthwise_conv2d poses, checked strictly.

`ConvSpec`'s own class methods take any form of strides and dilations; these two functions take
what the TensorFlow function of the same name takes, no more, so that code moves both ways.
"""

from __future__ import annotations

from tvmconv.problem.arguments import (
    data_format_name,
    dtype_name,
    strict_depthwise_dilations,
    strict_depthwise_strides,
)
from tvmconv.problem.rules import TENSORFLOW_DTYPES
from tvmconv.problem.spec import ConvSpec


def spec_of_conv2d_call(
    input_shape: object,
    input_dtype: object,
    filter_shape: object,
    filter_dtype: object,
    strides: object,
    padding: object,
    data_format: object = "NHWC",
    dilations: object = None,
) -> ConvSpec:
    """Return the problem of ``tf.nn.conv2d(input, filters, strides, padding, ...)``.

    Args:
        input_shape: rank >= 4, in ``data_format`` order.
        input_dtype: a dtype or its name; must equal ``filter_dtype``.
        filter_shape: (height, width, in_channels / groups, out_channels).
        filter_dtype: a dtype or its name.
        strides: None, an int, or 1, 2 (height, width) or 4 (``data_format`` order) ints.
        padding: ``"SAME"``, ``"VALID"``, or 4 pairs in ``data_format`` order.
        data_format: ``"NHWC"``, ``"NCHW"`` or None (NHWC).
        dilations: in the forms of ``strides``.

    Raises:
        TypeError: a wrong type, an unsupported dtype, or two dtypes.
        ValueError: a wrong value; the message names the argument, the value and the rule.

    """
    dtype = _common_dtype("conv2d", input_dtype, filter_dtype)
    return ConvSpec.conv2d(
        input_shape, filter_shape, strides, padding, data_format, dilations, dtype
    )


def spec_of_depthwise_call(
    input_shape: object,
    input_dtype: object,
    filter_shape: object,
    filter_dtype: object,
    strides: object,
    padding: object,
    data_format: object = None,
    dilations: object = None,
) -> ConvSpec:
    """Return the problem of ``tf.nn.depthwise_conv2d(input, filter, strides, padding, ...)``.

    One extension: strides may differ in height and width, which TensorFlow's CPU kernel refuses.

    Args:
        input_shape: rank 4, in ``data_format`` order.
        input_dtype: a dtype or its name; must equal ``filter_dtype``.
        filter_shape: (height, width, in_channels, multiplier).
        filter_dtype: a dtype or its name.
        strides: a list or tuple of 4 ints in ``data_format`` order.
        padding: ``"SAME"``, ``"VALID"``, or 4 pairs in ``data_format`` order.
        data_format: ``"NHWC"``, ``"NCHW"`` or None (NHWC).
        dilations: None or 2 ints (height, width); above 1 only where all strides are 1.

    Raises:
        TypeError: a wrong type, an unsupported dtype, or two dtypes.
        ValueError: a wrong value; the message names the argument, the value and the rule.

    """
    dtype = _common_dtype("depthwise_conv2d", input_dtype, filter_dtype)
    layout = data_format_name(data_format)
    return ConvSpec.depthwise_conv2d(
        input_shape,
        filter_shape,
        strict_depthwise_strides(strides, layout),
        padding,
        layout,
        strict_depthwise_dilations(dilations),
        dtype,
    )


def _common_dtype(op: str, input_dtype: object, filter_dtype: object) -> str:
    name = dtype_name(input_dtype, TENSORFLOW_DTYPES[op], f"{op}'s input")
    filter_name = dtype_name(filter_dtype, TENSORFLOW_DTYPES[op], f"{op}'s filter")
    if name != filter_name:
        raise TypeError(
            f"Input and filter of {op} must have the same dtype, but got {name} and "
            f"{filter_name}. Cast one of them."
        )
    return name
