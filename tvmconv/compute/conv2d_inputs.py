"""Dense convolution whose vectors run over input channels: for outputs too few to fill one.

sums[.., o, l] = sum over kh, kw, c of data[.., c * lanes + l] * filter[kh, kw, c * lanes + l, o]
conv[.., o]    = the sum of its ``lanes``, half of them added to the other half until two are left
"""

from __future__ import annotations

from typing import Any

from tvm import te

from tvmconv.compute.conv2d import in_layout
from tvmconv.compute.epilogue import epilogue, epilogue_arguments
from tvmconv.compute.geometry import geometry
from tvmconv.compute.padding import padded
from tvmconv.problem.spec import ConvSpec


def packed_filter_shape(spec: ConvSpec, block: int, lanes: int) -> tuple[int, ...]:
    """Return (blocks, kernel_height, kernel_width, in_channels / lanes, block, lanes)."""
    kernel_height, kernel_width, channels, out_channels = spec.filter_shape
    return (out_channels // block, kernel_height, kernel_width, channels // lanes, block, lanes)


def pack(spec: ConvSpec, block: int, lanes: int) -> list[te.Tensor]:
    """Put ``lanes`` input channels innermost: packed[b, i, j, c, v, l], block b's channel v."""
    source = te.placeholder(spec.filter_shape, spec.filter_dtype, name="filter")
    packed = te.compute(
        packed_filter_shape(spec, block, lanes),
        lambda b, i, j, c, v, lane: source[i, j, c * lanes + lane, b * block + v],
        name="packed",
    )
    return [source, packed]


def halvings(lanes: int) -> list[int]:
    """Lanes that are left after each addition of halves, the last two excluded: 16 give 8, 4, 2."""
    return [lanes >> step for step in range(1, lanes.bit_length() - 1)]


def direct(spec: ConvSpec, block: int, lanes: int) -> list[te.Tensor]:
    """The defining sum by ``lanes`` partial ones, which divide the input channels; ``block`` the output's.

    Stages: ``padded`` (where needed), ``conv``, one ``half<n>`` for each of `halvings`, ``out``. Returns
    data, filter, bias and residual where the spec has them, out. One group, NHWC.
    """
    g = geometry(spec)
    data = te.placeholder(g.data_shape, spec.dtype, name="data")
    shape = packed_filter_shape(spec, block, lanes)
    weights = te.placeholder(shape, spec.filter_dtype, name="filter")
    source = padded(data, g, spec.dtype)
    (sh, sw), (dh, dw) = g.strides, g.dilations
    kh = te.reduce_axis((0, g.kernel_height), "kh")
    kw = te.reduce_axis((0, g.kernel_width), "kw")
    ci = te.reduce_axis((0, g.in_channels // lanes), "ci")
    outputs = (g.batch, g.out_height, g.out_width, g.out_channels)
    sums = te.compute(
        (*outputs, lanes),
        lambda n, h, w, o, lane: te.sum(
            source[n, h * sh + kh * dh, w * sw + kw * dw, ci * lanes + lane]
            * weights[o // block, kh, kw, ci, o % block, lane],
            axis=[kh, kw, ci],
        ),
        name="conv",
    )
    for left in halvings(lanes):
        sums = _halved(sums, (*outputs, left))
    extra = epilogue_arguments(spec, g.out_shape)

    def finish(n: Any, h: Any, w: Any, o: Any, position: tuple[Any, ...]) -> Any:
        value = sums[n, h, w, o, 0] + sums[n, h, w, o, 1]
        return epilogue(spec, value, o, position, extra)

    return [data, weights, *extra, in_layout(g, finish)]


def _halved(sums: te.Tensor, shape: tuple[int, ...]) -> te.Tensor:
    left = shape[-1]
    return te.compute(
        shape,
        lambda n, h, w, o, lane: sums[n, h, w, o, lane] + sums[n, h, w, o, lane + left],
        name=f"half{left}",
    )
