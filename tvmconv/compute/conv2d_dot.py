"""Dense convolution by sums of short dot products, for instructions that multiply words of small numbers.

A word is 32 bits: four values of 8 bits or two of 16. The filter is stored in words, of consecutive
input channels or, where pixels have an odd number of channels, of a row of the kernel.

Most instructions take bytes of one kind: VNNI's unsigned by signed, Arm's SDOT signed by signed. Data of
the other kind is turned into that ``operand``: int8 data d becomes d + 128, uint8 data d - 128, also in the
padding, and

    sum(d * f) = sum((d + 128) * f) - 128 * sum(f) = sum((d - 128) * f) + 128 * sum(f)

where the last term, one number per output channel, is stored behind the filter's words.

Where there is an instruction for words of two 16-bit numbers alone, bytes of both kinds are widened once, the
filter when it is packed and data when it is copied: the ``operand`` int16.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass, replace
from typing import Any

from tvm import te, tirx

from tvmconv.compute.conv2d import filter_blocks, in_layout
from tvmconv.compute.epilogue import border, epilogue, epilogue_arguments
from tvmconv.compute.geometry import Geometry, geometry, is_pointwise
from tvmconv.compute.padding import reader
from tvmconv.problem.rules import BYTE_DTYPES, ITEM_BYTES
from tvmconv.problem.spec import ConvSpec

WORD_BYTES = 4
OFFSET = 128  # between an int8 and the uint8 with the other sign bit


@dataclass(frozen=True)
class Words:
    """How the reduction of a spec is cut into words.

    Attributes:
        values: of a word: 4 or 2.
        rows: whether a run is a row of the kernel and not one tap: then runs overlap pixels.
        taps: runs of one sum, (down, across).
        run: values next to each other in the data that one run takes.
    """

    values: int
    rows: bool
    taps: tuple[int, int]
    run: int

    @property
    def words(self) -> int:
        """Words of a run; the last may be padded with zeros in the filter."""
        return -(-self.run // self.values)

    @property
    def total(self) -> int:
        """Words of one sum."""
        return self.taps[0] * self.taps[1] * self.words


def words(spec: ConvSpec, operand: str | None = None) -> Words | None:
    """Cut the reduction of ``spec`` into words; None where it has a wrong dtype or does not fit.

    A row of the kernel may end in the middle of a word, whose other values then meet zeros in the
    filter: right for integers, wrong for an infinite float.
    """
    if spec.op != "conv2d" or spec.dtype not in (*BYTE_DTYPES, "bfloat16"):
        return None
    values = WORD_BYTES // (2 if is_widened(operand) else ITEM_BYTES[spec.dtype])
    kernel_height, kernel_width, group_in, _ = spec.filter_shape
    if group_in % values == 0:
        return Words(values, False, (kernel_height, kernel_width), group_in)
    row = kernel_width * group_in
    contiguous = spec.groups == 1 and spec.dilations[1] == 1
    if contiguous and (spec.dtype in BYTE_DTYPES or row % values == 0):
        return Words(values, True, (kernel_height, 1), row)
    return None


def cut(spec: ConvSpec, operand: str | None = None) -> Words:
    """Return `words` of a spec that has them."""
    found = words(spec, operand)
    assert found is not None, spec.key  # noqa: S101 - schedules accept what `words` knows
    return found


def is_widened(operand: str | None) -> bool:
    """Whether bytes are multiplied as 16 bits."""
    return operand == "int16"


def is_offset(spec: ConvSpec, operand: str | None) -> bool:
    """Whether bytes of data are turned into those that the instruction takes; None takes both."""
    return operand in BYTE_DTYPES and spec.dtype in BYTE_DTYPES and spec.dtype != operand


def is_copied(spec: ConvSpec, g: Geometry, operand: str | None) -> bool:
    """Whether data is copied, padded or turned into another kind of byte, before it is used."""
    changed = is_offset(spec, operand) or is_widened(operand)
    return cut(spec, operand).rows or changed or g.needs_padding or not g.channels_last


def can_gather(spec: ConvSpec) -> bool:
    """Whether `direct` can gather what every output pixel needs, and that is anything new."""
    return (
        spec.groups == 1
        and spec.data_format == "NHWC"
        and not cut(spec).rows
        and not is_pointwise(spec)
        and 0 not in (spec.in_height, spec.in_width)
    )


def in_one_row(spec: ConvSpec) -> Geometry:
    """Return the geometry of gathered pixels: one row of all, their neighbourhoods in place of channels."""
    g = geometry(spec)
    pixels = g.batch * g.out_height * g.out_width
    return replace(
        g,
        batch=1,
        in_height=1,
        in_width=pixels,
        out_height=1,
        out_width=pixels,
        kernel_height=1,
        kernel_width=1,
        strides=(1, 1),
        dilations=(1, 1),
        pads=(0, 0),
    )


def packed_filter_shape(spec: ConvSpec, block: int, operand: str | None) -> tuple[int, int, int]:
    """Return (groups * blocks, words of a sum and one for an offset, block)."""
    by = cut(spec, operand)
    _, blocks = filter_blocks(spec, block)
    return (spec.groups * blocks, by.total + is_offset(spec, operand), block)


def pack(spec: ConvSpec, block: int, operand: str | None) -> list[te.Tensor]:
    """Rearrange the filter: packed[b, k, v] is word k of the sum of channel v of block b."""
    by, (group_channels, blocks) = cut(spec, operand), filter_blocks(spec, block)
    source = te.placeholder(spec.filter_shape, spec.filter_dtype, name="filter")
    _, kernel_width, group_in, _ = spec.filter_shape

    def value(b: Any, run: Any, at: Any, v: Any) -> Any:
        """Value ``at`` of a run, 0 where there is none."""
        lane = b % blocks * block + v
        channel = b // blocks * group_channels + lane
        if by.rows:
            read = source[run, at // group_in, at % group_in, channel]
        else:
            read = source[run // kernel_width, run % kernel_width, at, channel]
        inside = tirx.all(lane < group_channels, at < by.run)
        return te.if_then_else(inside, read, tirx.const(0, spec.filter_dtype))

    def word(b: Any, k: Any, v: Any) -> Any:
        run, at = k // by.words, k % by.words * by.values
        parts = [_bits(value(b, run, at + r, v), r, spec, by) for r in range(by.values)]
        return functools.reduce(operator.or_, parts)

    if not is_offset(spec, operand):
        shape = packed_filter_shape(spec, block, operand)
        return [source, te.compute(shape, word, name="packed")]
    each = OFFSET if operand == "int8" else -OFFSET
    at = te.reduce_axis((0, by.words * by.values), "at")
    run = te.reduce_axis((0, by.taps[0] * by.taps[1]), "run")
    signs = te.compute(
        (spec.groups * blocks, block),
        lambda b, v: te.sum(value(b, run, at, v).astype("int32") * each, axis=[run, at]),
        name="signs",
    )
    packed = te.compute(
        packed_filter_shape(spec, block, operand),
        lambda b, k, v: te.if_then_else(k < by.total, word(b, k, v), signs[b, v]),
        name="packed",
    )
    return [source, packed]


def direct(
    spec: ConvSpec, block: int, operand: str | None, gather: bool = False
) -> list[te.Tensor]:
    """The sum of dot products, over a filter from `pack`; `words` must know the spec.

    Stages as in `compute.conv2d.direct`; ``conv`` reduces over (down, across, word, value of a word). With
    ``gather``, for specs that `can_gather`, ``padded`` is (pixels, down, across, channels): all that an
    output pixel needs side by side, and the outputs are one row of pixels, as `in_one_row` says.
    """
    g, by = in_one_row(spec) if gather else geometry(spec), cut(spec, operand)
    group_channels, blocks = filter_blocks(spec, block)
    lanes = blocks * block
    data = te.placeholder(geometry(spec).data_shape, data_dtype(spec), name="data")
    shape = packed_filter_shape(spec, block, operand)
    weights = te.placeholder(shape, "int32", name="filter")
    extra = epilogue_arguments(spec, g.out_shape)
    around = border(spec, extra)
    source = (
        _gathered(spec, data, around) if gather else _source(spec, g, by, data, operand, around)
    )
    (sh, sw), (dh, dw) = g.strides, g.dilations
    kh = te.reduce_axis((0, by.taps[0]), "kh")
    kw = te.reduce_axis((0, by.taps[1]), "kw")
    ki = te.reduce_axis((0, by.words), "ki")
    r = te.reduce_axis((0, by.values), "r")

    def product(n: Any, h: Any, w: Any, o: Any) -> Any:
        row, at = h * sh + kh * dh, ki * by.values + r
        if gather:
            value = source[w, kh, kw, at]
        elif by.rows:
            value = source[n, row, w * sw * g.in_channels + at]
        else:
            first = 0 if g.groups == 1 else o // lanes * by.run
            value = source[n, row, w * sw + kw * dw, first + at]
        k = (kh * by.taps[1] + kw) * by.words + ki
        return _number(value, spec) * _factor(weights[o // block, k, o % block], r, spec, by)

    conv = te.compute(
        (g.batch, g.out_height, g.out_width, g.groups * lanes),
        lambda n, h, w, o: te.sum(product(n, h, w, o), axis=[kh, kw, ki, r]),
        name="conv",
    )

    def finish(n: Any, h: Any, w: Any, o: Any, position: tuple[Any, ...]) -> Any:
        lane = o if lanes == group_channels else o // group_channels * lanes + o % group_channels
        value = conv[n, h, w, lane]
        if is_offset(spec, operand):
            value = value + weights[lane // block, by.total, lane % block]
        return epilogue(spec, value, o, position, extra)

    return [data, weights, *extra, in_layout(g, finish)]


def _gathered(spec: ConvSpec, data: te.Tensor, around: Any) -> te.Tensor:
    """(Output pixels of all images, kernel rows, kernel columns, input channels)."""
    g = geometry(spec)
    (sh, sw), (dh, dw), read = g.strides, g.dilations, reader(data, g, around=around)

    def at(p: Any, i: Any, j: Any, c: Any) -> Any:
        row, column = p // g.out_width, p % g.out_width
        return read(row // g.out_height, row % g.out_height * sh + i * dh, column * sw + j * dw, c)

    pixels = g.batch * g.out_height * g.out_width
    return te.compute((pixels, g.kernel_height, g.kernel_width, g.in_channels), at, name="padded")


def data_dtype(spec: ConvSpec) -> str:
    """The dtype of data in `direct`: the bits of bfloat16, so that TVM does not turn copies to float32."""
    return "uint16" if spec.dtype == "bfloat16" else spec.dtype


def _number(value: Any, spec: ConvSpec) -> Any:
    """A value of the data in the accumulator's dtype."""
    if spec.dtype == "bfloat16":
        return tirx.reinterpret("float32", value.astype("uint32") << tirx.const(16, "uint32"))
    return value.astype("int32")


def _factor(word: Any, r: Any, spec: ConvSpec, by: Words) -> Any:
    """Value r of a word of the filter in the accumulator's dtype."""
    if spec.dtype == "bfloat16":
        return tirx.reinterpret("float32", (word >> (16 * r)) << 16)
    bits = 8 * WORD_BYTES // by.values
    return (word >> (bits * r)).astype(f"int{bits}").astype("int32")


def _bits(value: Any, r: int, spec: ConvSpec, by: Words) -> Any:
    """A value of the filter at its place in a word."""
    if spec.dtype == "bfloat16":
        upper = tirx.reinterpret("uint32", value.astype("float32")) >> tirx.const(16, "uint32")
        return (upper << tirx.const(16 * r, "uint32")).astype("int32")
    bits = 8 * WORD_BYTES // by.values
    return value.astype(f"int{bits}").astype(f"uint{bits}").astype("int32") << (bits * r)


def _source(
    spec: ConvSpec, g: Geometry, by: Words, data: te.Tensor, operand: str | None, around: Any
) -> te.Tensor:
    """Data as the sums read it: a stage ``padded`` where `is_copied`, whole rows where runs are rows."""
    if not is_copied(spec, g, operand):
        return data
    shifted = is_offset(spec, operand)
    dtype = operand if operand is not None and (shifted or is_widened(operand)) else data.dtype

    def turned(value: Any) -> Any:
        if shifted:
            value = value.astype("uint8") ^ tirx.const(OFFSET, "uint8")
        return value.astype(dtype)

    read = reader(data, g, turned, around)
    if not by.rows:
        shape = (g.batch, g.padded_height, g.padded_width, g.in_channels)
        return te.compute(shape, read, name="padded")
    # The last word of the last run may reach behind the row.
    row = g.padded_width * g.in_channels
    reach = row + by.words * by.values - by.run
    zero = tirx.const(0, dtype)
    return te.compute(
        (g.batch, g.padded_height, reach),
        lambda n, h, at: te.if_then_else(
            at < row, read(n, h, at // g.in_channels, at % g.in_channels), zero
        ),
        name="padded",
    )
