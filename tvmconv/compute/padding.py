"""The input as the sums read it: NHWC order, zeros around."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from tvmconv.compute.geometry import Geometry


def padded(data: te.Tensor, g: Geometry) -> te.Tensor:
    """Return data as (batch, padded_height, padded_width, in_channels) with zeros where padding is.

    A stage of its own, named ``padded``: a schedule inlines it, computes it once, or row by row.
    When data is NHWC and no window leaves it, data itself is returned.
    """
    top, left = g.pads
    if g.channels_last and not g.needs_padding:
        return data

    def read(n: Any, h: Any, w: Any, c: Any) -> Any:
        value = data[n, h - top, w - left, c] if g.channels_last else data[n, c, h - top, w - left]
        inside = [
            *([h >= top] if top > 0 else []),
            *([h < g.in_height + top] if g.padded_height > g.in_height + top else []),
            *([w >= left] if left > 0 else []),
            *([w < g.in_width + left] if g.padded_width > g.in_width + left else []),
        ]
        if not inside:
            return value
        return te.if_then_else(tirx.all(*inside), value, tirx.const(0, data.dtype))

    shape = (g.batch, g.padded_height, g.padded_width, g.in_channels)
    if 0 in (g.in_height, g.in_width):
        return te.compute(shape, lambda *_: tirx.const(0, data.dtype), name="padded")
    return te.compute(shape, read, name="padded")
