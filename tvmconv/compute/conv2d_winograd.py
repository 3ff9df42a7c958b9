"""Winograd's minimal filtering: tiles of outputs for a quarter to a half of the multiplications.

    Y = A^T [ (G g G^T) * (B^T d B) ] A

A tile of m x m outputs of a 3x3 convolution of stride 1 needs (m + 2)^2 multiplications in place of
9 m^2: 2.25 times fewer for m = 2, 4 times for m = 4. The sums over input channels become (m + 2)^2
matrix products. Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016); the
matrices are Cook and Toom's for any points, in the form of Barabasz et al., "Error Analysis and
Improving the Accuracy of Winograd Convolution for Deep Neural Networks" (TOMS 2020).

Errors: float32 with 512 channels, largest error over largest output (random data, 2026-11):

    m = 2, points 0, +-1                 7e-7
    m = 4, points 0, +-3/4, +-3/2        4e-6     chosen: squares and cubes are exact in float32
    m = 4, points 0, +-1, +-2            1.3e-5   the textbook's
    m = 4, points 0, +-sqrt(1/2), +-sqrt(2)  4.5e-6
    m = 6, points 0, +-1/2, +-1, +-2     2.5e-5   beyond what is promised (2e-5): left out
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

from tvm import te, tirx

from tvmconv.compute.conv2d import filter_blocks
from tvmconv.compute.epilogue import epilogue, epilogue_arguments
from tvmconv.compute.geometry import geometry
from tvmconv.problem.spec import ConvSpec

TAPS = 3  # of the kernel, in each direction

Row = tuple[Fraction, ...]
Matrix = tuple[Row, ...]

# By outputs of a tile in each direction. Points come as 0 and pairs of one number and its negative.
_POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2)),
}
TILES = tuple(_POINTS)


@dataclass(frozen=True)
class Transform:
    """The three matrices for ``outputs`` results of a filter of three taps.

    Attributes:
        outputs: m, results of a tile in one direction.
        data: B^T, (m + 2) x (m + 2).
        filter: G, (m + 2) x 3.
        out: A^T, m x (m + 2).
    """

    outputs: int
    data: Matrix
    filter: Matrix
    out: Matrix

    @property
    def inputs(self) -> int:
        """Inputs, and products, of a tile in one direction: m + 2."""
        return self.outputs + TAPS - 1


def transform(outputs: int) -> Transform:
    """Return the matrices for tiles of ``outputs`` x ``outputs``; the last point is infinity."""
    points = _POINTS[outputs]
    others = [[b for b in points if b != a] for a in points]
    scales = [
        prod((a - b for b in rest), start=Fraction(1))
        for a, rest in zip(points, others, strict=True)
    ]
    data = [(*_polynomial(rest), Fraction(0)) for rest in others] + [_polynomial(points)]
    weights = [
        tuple(a**k / scale for k in range(TAPS)) for a, scale in zip(points, scales, strict=True)
    ]
    infinity = [Fraction(k == outputs - 1) for k in range(outputs)]
    out = [(*(a**k for a in points), infinity[k]) for k in range(outputs)]
    return Transform(
        outputs,
        tuple(data),
        (*weights, (Fraction(0), Fraction(0), Fraction(1))),
        tuple(out),
    )


def _polynomial(roots: Sequence[Fraction]) -> Row:
    """Coefficients of the product of (x - root), of x^0 first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [
            high - root * low
            for high, low in zip(shifted, [*coefficients, Fraction(0)], strict=True)
        ]
    return tuple(coefficients)


@dataclass(frozen=True)
class Tiling:
    """How the output is cut: ``high`` x ``wide`` tiles an image, ``band`` x ``columns`` of them at a time."""

    high: int
    wide: int
    band: int
    columns: int

    @property
    def bands(self) -> int:
        """Bands of an image."""
        return self.high // self.band

    @property
    def parts(self) -> int:
        """Strips of a band."""
        return self.wide // self.columns

    @property
    def strip(self) -> int:
        """Tiles of a strip."""
        return self.band * self.columns


def tile_rows(spec: ConvSpec, outputs: int) -> int:
    """Rows of tiles that cover the output."""
    return -(-spec.out_height // outputs)


def tile_columns(spec: ConvSpec, outputs: int) -> int:
    """Columns of tiles that cover the output."""
    return -(-spec.out_width // outputs)


def tiling(spec: ConvSpec, outputs: int, band: int, columns: int = 0) -> Tiling:
    """Cut the output of ``spec``: ``band`` divides the rows of tiles, ``columns`` the columns (0 is all)."""
    wide = tile_columns(spec, outputs)
    return Tiling(tile_rows(spec, outputs), wide, band, columns or wide)


def packed_filter_shape(spec: ConvSpec, outputs: int, block: int) -> tuple[int, ...]:
    """Return (m + 2, m + 2, blocks of output channels, in_channels, block)."""
    inputs = outputs + TAPS - 1
    _, blocks = filter_blocks(spec, block)
    return (inputs, inputs, blocks, spec.in_channels, block)


def pack(spec: ConvSpec, outputs: int, block: int) -> list[te.Tensor]:
    """Transform the filter, G g G^T, once for all calls, in float64 and rounded once.

    packed[i, j, b, q, v] belongs to product (i, j), input channel q, output channel b * block + v.
    """
    weights = transform(outputs).filter
    source = te.placeholder(spec.filter_shape, spec.dtype, name="filter")

    def columns(i: Any, y: Any, q: Any, o: Any) -> Any:
        taps = [source[x, y, q, o].astype("float64") for x in range(TAPS)]
        return _picked(i, [_sum(row, taps, "float64") for row in weights])

    inputs = len(weights)
    half = te.compute((inputs, TAPS, spec.in_channels, spec.out_channels), columns, name="half")

    def rows(i: Any, j: Any, b: Any, q: Any, v: Any) -> Any:
        taps = [half[i, y, q, b * block + v] for y in range(TAPS)]
        value = _picked(j, [_sum(row, taps, "float64") for row in weights])
        return value.astype(spec.dtype)

    return [source, te.compute(packed_filter_shape(spec, outputs, block), rows, name="packed")]


def winograd(
    spec: ConvSpec, outputs: int, block: int, band: int, columns: int = 0
) -> list[te.Tensor]:
    """Tiles of ``outputs`` x ``outputs``, over a filter from `pack`; ``block`` divides the channels.

    ``band`` and ``columns`` are those of `tiling`.

    Stages: ``rows`` and ``transformed`` (B^T d B), ``product`` (the sum over input channels),
    ``columns`` (A^T of it) and ``out``, with the epilogue. Returns the kernel's arguments: data,
    filter, bias and residual where the spec has them, out.
    """
    g, t, cut = geometry(spec), transform(outputs), tiling(spec, outputs, band, columns)
    dtype, (top, left), size = spec.accumulator_dtype, g.pads, t.inputs
    data = te.placeholder(g.data_shape, spec.dtype, name="data")
    weights = te.placeholder(packed_filter_shape(spec, outputs, block), spec.dtype, name="filter")
    strips = (g.batch, cut.bands, cut.parts)
    grid = (*strips, cut.band, cut.columns)

    def row(n: Any, b: Any, e: Any, y: Any, x: Any, r: Any, j: Any, q: Any) -> Any:
        """B^T along one row of inputs; rows and columns in the padding are zero."""
        h = (b * cut.band + y) * outputs + r - top
        zero = tirx.const(0, dtype)
        values = []
        for s in range(size):
            w = (e * cut.columns + x) * outputs + s - left
            inside = tirx.all(w >= 0, w < g.in_width)
            values.append(te.if_then_else(inside, data[n, h, w, q].astype(dtype), zero))
        picked = _picked(j, [_data_sum(each, values, dtype) for each in t.data])
        return te.if_then_else(tirx.all(h >= 0, h < g.in_height), picked, zero)

    rows = te.compute((*grid, size, size, g.in_channels), row, name="rows")

    def transformed_at(n: Any, b: Any, e: Any, i: Any, j: Any, p: Any, q: Any) -> Any:
        at = (n, b, e, p // cut.columns, p % cut.columns)
        values = [rows[(*at, r, j, q)] for r in range(size)]
        return _picked(i, [_data_sum(each, values, dtype) for each in t.data])

    transformed = te.compute(
        (*strips, size, size, cut.strip, g.in_channels), transformed_at, "transformed"
    )
    ci = te.reduce_axis((0, g.in_channels), "ci")
    product = te.compute(
        (*strips, cut.strip, size, size, g.out_channels),
        lambda n, b, e, p, i, j, o: te.sum(
            transformed[n, b, e, i, j, p, ci]
            * weights[i, j, o // block, ci, o % block].astype(dtype),
            axis=ci,
        ),
        name="product",
    )

    def column(n: Any, b: Any, e: Any, y: Any, x: Any, k: Any, j: Any, o: Any) -> Any:
        """A^T along one column of products."""
        values = [product[n, b, e, y * cut.columns + x, i, j, o] for i in range(size)]
        return _picked(k, [_out_sum(each, values, dtype) for each in t.out])

    halves = te.compute((*grid, outputs, size, g.out_channels), column, name="columns")
    extra = epilogue_arguments(spec, g.out_shape)

    def finish(n: Any, h: Any, w: Any, o: Any) -> Any:
        th, tw = h // outputs, w // outputs
        strip = (n, th // cut.band, tw // cut.columns)
        at = (*strip, th % cut.band, tw % cut.columns, h % outputs)
        values = [halves[(*at, j, o)] for j in range(size)]
        value = _picked(w % outputs, [_out_sum(each, values, dtype) for each in t.out])
        return epilogue(spec, value, o, (n, h, w, o), extra)

    return [data, weights, *extra, te.compute(g.out_shape, finish, name="out")]


def _picked(number: Any, values: Sequence[Any]) -> Any:
    """values[number]; one of them is left when the loop of ``number`` is unrolled."""
    chosen = values[-1]
    for at in reversed(range(len(values) - 1)):
        chosen = tirx.Select(number == at, values[at], chosen)
    return chosen


def _sum(row: Sequence[Fraction], values: Sequence[Any], dtype: str) -> Any:
    """Sum of coefficient times value, without the terms that vanish."""
    terms = [
        value if factor == 1 else value * tirx.const(float(factor), dtype)
        for factor, value in zip(row, values, strict=True)
        if factor
    ]
    return functools.reduce(operator.add, terms)


def _data_sum(row: Row, values: Sequence[Any], dtype: str) -> Any:
    """A row of B^T, so spelled that the rows of a point and of its negative share all but an addition.

    Their coefficients differ in the sign of the odd ones, or of the even ones. LLVM computes what is
    spelled alike but once.
    """
    even = [factor if at % 2 == 0 else Fraction(0) for at, factor in enumerate(row)]
    odd = [factor if at % 2 else Fraction(0) for at, factor in enumerate(row)]
    if not any(even) or not any(odd):
        return _sum(row, values, dtype)
    first, second = (_leading_sign(half) for half in (even, odd))
    one = _sum([first * factor for factor in even], values, dtype)
    two = _sum([second * factor for factor in odd], values, dtype)
    if first < 0:
        return two - one if second > 0 else -(one + two)
    return one + two if second > 0 else one - two


def _leading_sign(row: Sequence[Fraction]) -> int:
    return 1 if next(factor for factor in row if factor) > 0 else -1


def _out_sum(row: Row, values: Sequence[Any], dtype: str) -> Any:
    """A row of A^T: the products of a point and of its negative enter by their sum or difference."""
    factors, terms = [row[0]], [values[0]]
    for at in range(1, len(row) - 1, 2):
        same = row[at] == row[at + 1]
        terms.append(values[at] + values[at + 1] if same else values[at] - values[at + 1])
        factors.append(row[at])
    return _sum([*factors, row[-1]], [*terms, values[-1]], dtype)
