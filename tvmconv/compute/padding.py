"""The input as the sums read it: NHWC order, zeros, or what stands for them, around."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import te, tirx

from tvmconv.compute.geometry import Geometry

Read = Callable[[Any, Any, Any, Any], Any]


def padded(data: te.Tensor, g: Geometry, dtype: str, around: Any = None) -> te.Tensor:
    """Return data as (batch, padded_height, padded_width, in_channels), with ``around`` where padding is.

    A stage of its own, named ``padded``: a schedule inlines it, computes it once, or row by row. ``around``
    is in the dtype of data, zero by default. When data is NHWC, of that dtype, and no window leaves it, data
    itself is returned.
    """
    if g.channels_last and not g.needs_padding and data.dtype == dtype:
        return data
    shape = (g.batch, g.padded_height, g.padded_width, g.in_channels)
    read = reader(data, g, lambda value: value.astype(dtype), around)
    return te.compute(shape, read, name="padded")


def reader(
    data: te.Tensor,
    g: Geometry,
    convert: Callable[[Any], Any] = lambda value: value,
    around: Any = None,
) -> Read:
    """Return the function of (image, row, column, channel) in the padded image: ``convert`` of it."""
    top, left = g.pads
    zero = convert(tirx.const(0, data.dtype) if around is None else around)
    if 0 in (g.in_height, g.in_width):
        return lambda *_: zero

    def read(n: Any, h: Any, w: Any, c: Any) -> Any:
        value = data[n, h - top, w - left, c] if g.channels_last else data[n, c, h - top, w - left]
        inside = [
            *([h >= top] if top > 0 else []),
            *([h < g.in_height + top] if g.padded_height > g.in_height + top else []),
            *([w >= left] if left > 0 else []),
            *([w < g.in_width + left] if g.padded_width > g.in_width + left else []),
        ]
        if not inside:
            return convert(value)
        return te.if_then_else(tirx.all(*inside), convert(value), zero)

    return read
