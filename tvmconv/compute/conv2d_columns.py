"""Dense convolution whose vectors run over columns of the image: for few input and few output channels.

Data is copied row by row and channel by channel, so that neighbouring columns lie side by side; with a stride
every so many of them, a run for each remainder. conv is computed in that order too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tvm import te

from tvmconv.compute.conv2d import in_layout, packed_filter_shape
from tvmconv.compute.epilogue import epilogue, epilogue_arguments
from tvmconv.compute.geometry import geometry, round_up
from tvmconv.compute.padding import reader
from tvmconv.problem.spec import ConvSpec


def direct(spec: ConvSpec, block: int, pixels: int) -> list[te.Tensor]:
    """The defining sum, of rows of whole tiles of ``pixels``, over a filter from `conv2d.pack`.

    Stages: ``columns`` (image, row, channel, remainder, column), ``conv`` (image, row, channel, column) with
    columns beyond the last, ``out``. ``block`` divides the output channels. Returns data, filter, bias and
    residual where the spec has them, out. One group, NHWC.
    """
    g = geometry(spec)
    (sh, sw), (dh, dw) = g.strides, g.dilations
    wide = round_up(g.out_width, pixels)
    reach = (g.kernel_width - 1) * dw // sw
    data = te.placeholder(g.data_shape, spec.dtype, name="data")
    weights = te.placeholder(packed_filter_shape(spec, block), spec.filter_dtype, name="filter")
    read = reader(data, replace(g, out_width=wide + reach + 1))
    columns = te.compute(
        (g.batch, g.padded_height, g.in_channels, sw, wide + reach),
        lambda n, h, c, r, x: read(n, h, x * sw + r, c),
        name="columns",
    )
    kh = te.reduce_axis((0, g.kernel_height), "kh")
    kw = te.reduce_axis((0, g.kernel_width), "kw")
    ci = te.reduce_axis((0, g.in_channels), "ci")
    conv = te.compute(
        (g.batch, g.out_height, g.out_channels, wide),
        lambda n, h, o, x: te.sum(
            columns[n, h * sh + kh * dh, ci, kw * dw % sw, x + kw * dw // sw]
            * weights[o // block, kh, kw, ci, o % block],
            axis=[kh, ci, kw],
        ),
        name="conv",
    )
    extra = epilogue_arguments(spec, g.out_shape)

    def finish(n: Any, h: Any, w: Any, o: Any, position: tuple[Any, ...]) -> Any:
        return epilogue(spec, conv[n, h, o, w], o, position, extra)

    return [data, weights, *extra, in_layout(g, finish)]
