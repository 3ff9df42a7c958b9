"""Dense convolution by small matrix products: 2 pixels x 8 bytes times 8 bytes x 2 channels.

The filter is cut into words as in dot_conv2d; two words of two channels lie side by side. The sums of two
neighbouring pixels and two channels do too, so stage ``conv`` has the shape (image, row, pair of pixels,
pair of channels, pixel, channel).
"""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from tvmconv.compute import conv2d_dot
from tvmconv.compute.conv2d import filter_blocks, in_layout
from tvmconv.compute.epilogue import border, epilogue, epilogue_arguments
from tvmconv.compute.geometry import geometry
from tvmconv.compute.padding import padded
from tvmconv.problem.spec import ConvSpec

STEP_BYTES = 8
_SIDE = 2  # pixels, and channels, of a product


def fits(spec: ConvSpec) -> bool:
    """Whether every tap has whole steps of input channels."""
    cut = conv2d_dot.words(spec)
    return cut is not None and not cut.rows and cut.run % STEP_BYTES == 0


def packed_filter_shape(spec: ConvSpec, block: int) -> tuple[int, int, int, int]:
    """Return (groups * blocks, steps of a sum, block, bytes of a step); block is even."""
    kernel_height, kernel_width, group_in, _ = spec.filter_shape
    steps = kernel_height * kernel_width * (group_in // STEP_BYTES)
    _, blocks = filter_blocks(spec, block)
    return (spec.groups * blocks, steps, block, STEP_BYTES)


def pack(spec: ConvSpec, block: int) -> list[te.Tensor]:
    """Rearrange the filter: packed[b, s, v, r] is byte r of step s of channel v of block b."""
    group_channels, blocks = filter_blocks(spec, block)
    source = te.placeholder(spec.filter_shape, spec.filter_dtype, name="filter")
    _, kernel_width, group_in, _ = spec.filter_shape
    steps = group_in // STEP_BYTES

    def read(b: Any, s: Any, v: Any, r: Any) -> Any:
        tap, lane = s // steps, b % blocks * block + v
        channel = b // blocks * group_channels + lane
        value = source[tap // kernel_width, tap % kernel_width, s % steps * STEP_BYTES + r, channel]
        return te.if_then_else(lane < group_channels, value, tirx.const(0, spec.filter_dtype))

    return [source, te.compute(packed_filter_shape(spec, block), read, name="packed")]


def direct(spec: ConvSpec, block: int) -> list[te.Tensor]:
    """The defining sum over a filter from `pack`, for specs that it `fits`.

    ``conv`` reduces over (down, across, step, byte of a step). Where a row has an odd number of pixels, the
    last one is computed twice.
    """
    g = geometry(spec)
    group_channels, blocks = filter_blocks(spec, block)
    lanes, group_in = blocks * block, g.in_channels // g.groups
    data = te.placeholder(g.data_shape, spec.dtype, name="data")
    weights = te.placeholder(packed_filter_shape(spec, block), spec.filter_dtype, name="filter")
    extra = epilogue_arguments(spec, g.out_shape)
    source = padded(data, g, spec.dtype, border(spec, extra))
    (sh, sw), (dh, dw) = g.strides, g.dilations
    kh = te.reduce_axis((0, g.kernel_height), "kh")
    kw = te.reduce_axis((0, g.kernel_width), "kw")
    ki = te.reduce_axis((0, group_in // STEP_BYTES), "ki")
    r = te.reduce_axis((0, STEP_BYTES), "r")
    pairs = -(-g.out_width // _SIDE)

    def product(n: Any, h: Any, wp: Any, op: Any, i: Any, j: Any) -> Any:
        w = wp * _SIDE + i
        if g.out_width % _SIDE:
            w = tirx.min(w, g.out_width - 1)
        o = op * _SIDE + j
        first = 0 if g.groups == 1 else o // lanes * group_in
        at = first + ki * STEP_BYTES + r
        value = source[n, h * sh + kh * dh, w * sw + kw * dw, at]
        step = (kh * g.kernel_width + kw) * (group_in // STEP_BYTES) + ki
        factor = weights[o // block, step, o % block, r]
        return value.astype("int32") * factor.astype("int32")

    conv = te.compute(
        (g.batch, g.out_height, pairs, g.groups * lanes // _SIDE, _SIDE, _SIDE),
        lambda *at: te.sum(product(*at), axis=[kh, kw, ki, r]),
        name="conv",
    )

    def finish(n: Any, h: Any, w: Any, o: Any, position: tuple[Any, ...]) -> Any:
        lane = o if lanes == group_channels else o // group_channels * lanes + o % group_channels
        value = conv[n, h, w // _SIDE, lane // _SIDE, w % _SIDE, lane % _SIDE]
        return epilogue(spec, value, o, position, extra)

    return [data, weights, *extra, in_layout(g, finish)]
