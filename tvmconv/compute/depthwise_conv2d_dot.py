"""Depthwise convolution by dot products of words: four neighbouring columns of one channel are a word.

The word that begins at an even column serves the two outputs of stride 1 that begin at it and at the next
column, by two filters, of which one is shifted by a byte:

    columns   0 1 2 3
    output 0  a b c .
    output 1  . a b c

At stride 2 every output has a word of its own. A wider kernel's rows take several words, four columns apart.
Bytes of a filter's word that are no tap are zero, so it does not matter what they meet.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import Any

from tvm import te, tirx

from tvmconv.compute.conv2d_dot import OFFSET, WORD_BYTES, is_offset
from tvmconv.compute.epilogue import border, epilogue, epilogue_arguments
from tvmconv.compute.geometry import Geometry, geometry
from tvmconv.problem.rules import BYTE_DTYPES
from tvmconv.problem.spec import ConvSpec


@dataclass(frozen=True)
class Words:
    """How rows of the kernel are cut: so many words each, in a filter for each of ``phases`` outputs."""

    words: int
    phases: int

    @property
    def window(self) -> int:
        """Columns that the words of one output reach over, where it is the last of those that share them."""
        return WORD_BYTES * self.words - (self.phases - 1)


def words(spec: ConvSpec) -> Words | None:
    """Cut the rows of ``spec``; None where words do not fit."""
    stride, multiplier = spec.strides[1], spec.filter_shape[3]
    fits = spec.op == "depthwise_conv2d" and spec.dtype in BYTE_DTYPES and multiplier == 1
    if not fits or spec.data_format != "NHWC" or spec.dilations[1] != 1 or stride not in (1, 2):
        return None
    phases = 3 - stride
    return Words(-(-(spec.kernel_width + phases - 1) // WORD_BYTES), phases)


def cut(spec: ConvSpec) -> Words:
    """Return `words` of a spec that has them."""
    found = words(spec)
    assert found is not None, spec.key  # noqa: S101 - schedules accept what `words` knows
    return found


def packed_filter_shape(spec: ConvSpec, operand: str | None) -> tuple[int, int]:
    """Return (words of all rows and phases and one for an offset, channels)."""
    by = cut(spec)
    words_ = spec.kernel_height * by.words * by.phases
    return (words_ + is_offset(spec, operand), spec.in_channels)


def pack(spec: ConvSpec, operand: str | None) -> list[te.Tensor]:
    """Rearrange the filter: packed[(row * words + word) * phases + phase, k], for `direct`."""
    by = cut(spec)
    source = te.placeholder(spec.filter_shape, spec.filter_dtype, name="filter")
    zero = tirx.const(0, spec.filter_dtype)

    def byte(row: Any, tap: Any, k: Any) -> Any:
        inside = tirx.all(tap >= 0, tap < spec.kernel_width)
        value = te.if_then_else(inside, source[row, tap, k, 0], zero)
        return value.astype("uint8").astype("int32")

    def word(at: Any, k: Any) -> Any:
        row, first = at // (by.words * by.phases), at // by.phases % by.words * WORD_BYTES
        parts = (byte(row, first + i - at % by.phases, k) << (8 * i) for i in range(WORD_BYTES))
        return functools.reduce(operator.or_, parts)

    shape = packed_filter_shape(spec, operand)
    if not is_offset(spec, operand):
        return [source, te.compute(shape, word, name="packed")]
    kh = te.reduce_axis((0, spec.kernel_height), "kh")
    kw = te.reduce_axis((0, spec.kernel_width), "kw")
    each = OFFSET if operand == "int8" else -OFFSET
    signs = te.compute(
        (spec.in_channels,),
        lambda k: te.sum(source[kh, kw, k, 0].astype("int32") * each, axis=[kh, kw]),
        name="signs",
    )
    last = shape[0] - 1
    packed = te.compute(
        shape, lambda at, k: te.if_then_else(at < last, word(at, k), signs[k]), name="packed"
    )
    return [source, packed]


def direct(spec: ConvSpec, operand: str | None) -> list[te.Tensor]:
    """The sum of dot products, over a filter from `pack`; `words` must know the spec.

    Stages: ``words`` (image, row, half column, channel, byte), ``conv``, which reduces over (down, word, byte
    of a word), and ``out``. Returns data, filter, bias and residual where the spec has them, out.
    """
    g, by = geometry(spec), cut(spec)
    data = te.placeholder(g.data_shape, spec.dtype, name="data")
    weights = te.placeholder(packed_filter_shape(spec, operand), "int32", name="filter")
    extra = epilogue_arguments(spec, g.out_shape)
    source = _words(g, by, data, border(spec, extra))
    sh, dh = g.strides[0], g.dilations[0]
    kh = te.reduce_axis((0, g.kernel_height), "kh")
    kw = te.reduce_axis((0, by.words), "kw")
    r = te.reduce_axis((0, WORD_BYTES), "r")
    turned = is_offset(spec, operand)

    def product(n: Any, h: Any, w: Any, k: Any) -> Any:
        value = source[n, h * sh + kh * dh, w // by.phases + 2 * kw, k, r]
        if turned:
            value = (value.astype("uint8") ^ tirx.const(OFFSET, "uint8")).astype(operand)
        factor = weights[(kh * by.words + kw) * by.phases + w % by.phases, k]
        return value.astype("int32") * (factor >> (8 * r)).astype("int8").astype("int32")

    conv = te.compute(
        g.out_shape,
        lambda n, h, w, k: te.sum(product(n, h, w, k), axis=[kh, kw, r]),
        name="conv",
    )

    def finish(n: Any, h: Any, w: Any, k: Any) -> Any:
        value = conv[n, h, w, k]
        if turned:
            value = value + weights[weights.shape[0] - 1, k]
        return epilogue(spec, value, k, (n, h, w, k), extra)

    return [data, weights, *extra, te.compute(g.out_shape, finish, name="out")]


def _words(g: Geometry, by: Words, data: te.Tensor, around: Any) -> te.Tensor:
    """Bytes of the words that begin at even columns of the padded image."""
    top, left = g.pads
    around = tirx.const(0, data.dtype) if around is None else around
    halves = -(-g.out_width // by.phases) + 2 * (by.words - 1)

    def read(n: Any, y: Any, half: Any, k: Any, byte: Any) -> Any:
        row, column = y - top, 2 * half + byte - left
        inside = tirx.all(row >= 0, row < g.in_height, column >= 0, column < g.in_width)
        return te.if_then_else(inside, data[n, row, column, k], around)

    shape = (g.batch, g.padded_height, halves, g.in_channels, WORD_BYTES)
    return te.compute(shape, read, name="words")
