"""Depthwise convolution as tensor expressions; what is computed, and nothing of how."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tvm import te

from tvmconv.compute.conv2d import in_layout
from tvmconv.compute.epilogue import border, epilogue, epilogue_arguments
from tvmconv.compute.geometry import geometry
from tvmconv.compute.padding import padded
from tvmconv.problem.rules import BYTE_DTYPES, OP_DTYPES
from tvmconv.problem.spec import ConvSpec


def as_depthwise(spec: ConvSpec) -> ConvSpec | None:
    """Return the depthwise convolution that ``spec`` is: itself, or a conv2d of one channel a group.

    The bytes of all arrays are the same, only the filter's shape is another: (height, width, 1, channels *
    multiplier). None for any other conv2d, and for what depthwise_conv2d has not: int32, or strides and
    dilations together.
    """
    if spec.op == "depthwise_conv2d":
        return spec
    kernel_height, kernel_width, group_in, out_channels = spec.filter_shape
    channels, is_both = spec.in_channels, max(spec.strides) > 1 and max(spec.dilations) > 1
    if group_in > 1 or channels == 1 or is_both or spec.dtype not in OP_DTYPES["depthwise_conv2d"]:
        return None
    return replace(
        spec,
        op="depthwise_conv2d",
        input_shape=(spec.batch, *spec.input_shape[-3:]),
        filter_shape=(kernel_height, kernel_width, channels, out_channels // channels),
        tf32=False,
    )


def packed_filter_shape(spec: ConvSpec) -> tuple[int, int, int, int]:
    """Return (kernel_height, kernel_width, multiplier, in_channels)."""
    kernel_height, kernel_width, channels, multiplier = spec.filter_shape
    return (kernel_height, kernel_width, multiplier, channels)


def pack(spec: ConvSpec, stored: str | None = None) -> list[te.Tensor]:
    """Put the input channels innermost: packed[i, j, q, k] = filter[i, j, k, q].

    ``stored`` is the dtype of packed, the filter's by default; bytes stored as int32 are 16 bits in the
    lower half of it.
    """
    source = te.placeholder(spec.filter_shape, spec.filter_dtype, name="filter")
    packed = te.compute(
        packed_filter_shape(spec),
        lambda i, j, q, k: _stored(source[i, j, k, q], spec, stored or spec.filter_dtype),
        name="packed",
    )
    return [source, packed]


def _is_lower_half(spec: ConvSpec, stored: str) -> bool:
    return spec.dtype in BYTE_DTYPES and stored == "int32"


def _stored(value: Any, spec: ConvSpec, stored: str) -> Any:
    if _is_lower_half(spec, stored):
        return value.astype("int16").astype("uint16").astype("int32")
    return value.astype(stored)


def _number(weight: Any, spec: ConvSpec, stored: str) -> Any:
    if _is_lower_half(spec, stored):
        return weight.astype("int16").astype("int32")
    return weight.astype(spec.accumulator_dtype)


def direct(spec: ConvSpec, stored: str | None = None) -> list[te.Tensor]:
    """The defining sum, with one accumulator per (multiplier q, input channel k).

    Output channel k * multiplier + q is interleaved by the last stage only, so that the sums run
    over contiguous input channels whatever the multiplier is. Stages: ``padded`` (where needed),
    ``conv``, ``out``. Returns data, filter, bias and residual where the spec has them, out. The
    filter is packed, in the dtype ``stored``; with multiplier 1 packing moves nothing.
    """
    g = geometry(spec)
    m = spec.multiplier
    data = te.placeholder(g.data_shape, spec.dtype, name="data")
    stored = stored or spec.filter_dtype
    weights = te.placeholder(packed_filter_shape(spec), stored, name="filter")
    extra = epilogue_arguments(spec, g.out_shape)
    source = padded(data, g, spec.dtype, border(spec, extra))
    (sh, sw), (dh, dw), dtype = g.strides, g.dilations, spec.accumulator_dtype
    kh = te.reduce_axis((0, g.kernel_height), "kh")
    kw = te.reduce_axis((0, g.kernel_width), "kw")
    conv = te.compute(
        (g.batch, g.out_height, g.out_width, m, g.in_channels),
        lambda n, h, w, q, k: te.sum(
            source[n, h * sh + kh * dh, w * sw + kw * dw, k].astype(dtype)
            * _number(weights[kh, kw, q, k], spec, stored),
            axis=[kh, kw],
        ),
        name="conv",
    )

    def finish(n: Any, h: Any, w: Any, o: Any, position: tuple[Any, ...]) -> Any:
        return epilogue(spec, conv[n, h, w, o % m, o // m], o, position, extra)

    return [data, weights, *extra, in_layout(g, finish)]
