"""Dense and grouped convolution as tensor expressions; what is computed, and nothing of how."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from tvmconv.compute.epilogue import border, epilogue, epilogue_arguments
from tvmconv.compute.geometry import Geometry, geometry
from tvmconv.compute.padding import padded
from tvmconv.problem.rules import BYTE_DTYPES, HALF_DTYPES
from tvmconv.problem.spec import ConvSpec


def is_half(spec: ConvSpec) -> bool:
    """Whether numbers have 16 bits and are summed in 32."""
    return spec.dtype in HALF_DTYPES


def widened(spec: ConvSpec) -> str:
    """The dtype of data and filter that are widened once: float32 of halves, 16 bits of bytes.

    Products of 16 bits are summed in 32 by one instruction (pmaddwd, smlal); what needs no widening stays.
    """
    if spec.dtype in BYTE_DTYPES:
        return "int16"
    return "float32" if is_half(spec) else spec.dtype


def filter_blocks(spec: ConvSpec, block: int) -> tuple[int, int]:
    """Return (output channels of one group, blocks of ``block`` channels that hold them)."""
    group_channels = spec.out_channels // spec.groups
    return group_channels, -(-group_channels // block)


def packed_filter_shape(spec: ConvSpec, block: int) -> tuple[int, int, int, int, int]:
    """Return (groups * blocks, kernel_height, kernel_width, in_channels / groups, block)."""
    kernel_height, kernel_width, group_in, _ = spec.filter_shape
    _, blocks = filter_blocks(spec, block)
    return (spec.groups * blocks, kernel_height, kernel_width, group_in, block)


def pack(spec: ConvSpec, block: int, widen: bool = False) -> list[te.Tensor]:
    """Rearrange the filter so that the ``block`` channels of one tile lie side by side.

    packed[b, i, j, q, v] = filter[i, j, q, channel], where block b and lane v name the channel;
    lanes beyond a group's last channel are zero. With ``widen`` `widened`.
    """
    group_channels, blocks = filter_blocks(spec, block)
    source = te.placeholder(spec.filter_shape, spec.filter_dtype, name="filter")
    dtype = widened(spec) if widen else spec.filter_dtype

    def read(b: Any, i: Any, j: Any, q: Any, v: Any) -> Any:
        lane = b % blocks * block + v
        value = source[i, j, q, b // blocks * group_channels + lane].astype(dtype)
        if group_channels % block == 0:
            return value
        return te.if_then_else(lane < group_channels, value, tirx.const(0, dtype))

    return [source, te.compute(packed_filter_shape(spec, block), read, name="packed")]


def direct(spec: ConvSpec, block: int, widen: bool = False) -> list[te.Tensor]:
    """The defining sum, over a filter packed in blocks of ``block`` output channels.

    Stages: ``padded`` (where needed), ``conv`` in NHWC order with every group padded to whole
    blocks, ``out`` with the epilogue in the layout of the spec. With ``widen``, halves and
    bytes are `widened` once and not for every product: the filter where it is packed, data in
    ``padded``, which then is always there. Returns the kernel's arguments: data, filter, bias and residual
    where the spec has them, out.
    """
    g = geometry(spec)
    group_channels, blocks = filter_blocks(spec, block)
    group_in = g.in_channels // g.groups
    lanes = blocks * block
    data = te.placeholder(g.data_shape, spec.dtype, name="data")
    stored = widened(spec) if widen else spec.filter_dtype
    weights = te.placeholder(packed_filter_shape(spec, block), stored, name="filter")
    extra = epilogue_arguments(spec, g.out_shape)
    source = padded(data, g, widened(spec) if widen else spec.dtype, border(spec, extra))
    (sh, sw), (dh, dw), dtype = g.strides, g.dilations, spec.accumulator_dtype
    kh = te.reduce_axis((0, g.kernel_height), "kh")
    kw = te.reduce_axis((0, g.kernel_width), "kw")
    ci = te.reduce_axis((0, group_in), "ci")
    conv = te.compute(
        (g.batch, g.out_height, g.out_width, g.groups * lanes),
        lambda n, h, w, o: te.sum(
            source[n, h * sh + kh * dh, w * sw + kw * dw, o // lanes * group_in + ci].astype(dtype)
            * weights[o // block, kh, kw, ci, o % block].astype(dtype),
            axis=[kh, kw, ci],
        ),
        name="conv",
    )

    def finish(n: Any, h: Any, w: Any, o: Any, position: tuple[Any, ...]) -> Any:
        lane = o if lanes == group_channels else o // group_channels * lanes + o % group_channels
        return epilogue(spec, conv[n, h, w, lane], o, position, extra)

    return [data, weights, *extra, in_layout(g, finish)]


def in_layout(g: Geometry, finish: Any) -> te.Tensor:
    """Return stage ``out``: finish(n, h, w, channel, position) written in the spec's layout."""
    if g.channels_last:
        return te.compute(
            g.out_shape, lambda n, h, w, o: finish(n, h, w, o, (n, h, w, o)), name="out"
        )
    return te.compute(g.out_shape, lambda n, o, h, w: finish(n, h, w, o, (n, o, h, w)), name="out")
