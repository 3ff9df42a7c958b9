"""Dense convolution as one matrix product: gathered pixels by packed filter, for GPUs.

    conv[s, m, n] = sum over k of gathered[m, s * depth + k] * filter[n, s * depth + k]

Row m is an output pixel of any image, column n an output channel, and k runs over the kernel's rows, its
columns and the input channels. All three are padded to whole tiles with zeros, of which only the filter's
are stored. The sum may be cut into ``splits`` parts, added up by a second kernel: a small layer has too few
tiles for all multiprocessors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import te, tirx

from tvmconv.compute.epilogue import border, epilogue, epilogue_arguments
from tvmconv.compute.geometry import Geometry, geometry, round_up
from tvmconv.compute.padding import reader
from tvmconv.problem.spec import ConvSpec

# Of float32's 23 bits behind the point TF32 has ten.
_TF32_CUT = 13
_TF32_KEPT = 0xFFFFFFFF >> _TF32_CUT << _TF32_CUT


@dataclass(frozen=True)
class Product:
    """Extents of the matrix product: of the problem, and padded to tiles; ``depth`` is one split's."""

    rows: int
    columns: int
    inner: int
    padded_rows: int
    padded_columns: int
    depth: int
    splits: int

    @property
    def padded_inner(self) -> int:
        """Padded extent of the sum over all splits."""
        return self.depth * self.splits

    @property
    def workspace(self) -> int:
        """Elements that the parts of split sums need, of the accumulator's dtype; 0 for one part."""
        return (self.splits > 1) * self.splits * self.padded_rows * self.padded_columns


def can_gather(spec: ConvSpec) -> bool:
    """Whether `implicit_gemm` knows this spec: dense, NHWC, with an input."""
    return (
        spec.op == "conv2d"
        and spec.groups == 1
        and spec.data_format == "NHWC"
        and 0 not in (spec.in_height, spec.in_width, spec.in_channels)
    )


def product(spec: ConvSpec, tile: tuple[int, int, int], splits: int = 1) -> Product:
    """Return the extents for tiles of (rows, columns, inner) and a number of parts of the sum."""
    rows = spec.batch * spec.out_height * spec.out_width
    inner = spec.kernel_height * spec.kernel_width * spec.in_channels
    return Product(
        rows,
        spec.out_channels,
        inner,
        round_up(rows, tile[0]),
        round_up(spec.out_channels, tile[1]),
        round_up(inner, tile[2] * splits) // splits,
        splits,
    )


def pack(
    spec: ConvSpec, p: Product, columns_first: bool = True, tf32: bool = False
) -> list[te.Tensor]:
    """Pad the filter with zeros to packed[n, k], or packed[k, n] unless ``columns_first``.

    With ``tf32`` its values, float32, are rounded to TF32, as a product on tensor cores takes them.
    """
    source = te.placeholder(spec.filter_shape, spec.filter_dtype, name="filter")
    width, channels = spec.kernel_width, spec.in_channels

    def value(*at: Any) -> Any:
        n, k = at if columns_first else reversed(at)
        tap = k // channels
        read = source[tap // width, tap % width, k % channels, n]
        read = _rounded_to_tf32(read) if tf32 else read
        inside = tirx.all(n < p.columns, k < p.inner)
        return te.if_then_else(inside, read, tirx.const(0, spec.filter_dtype))

    return [source, te.compute(_packed_shape(p, columns_first), value, name="packed")]


def _rounded_to_tf32(value: Any) -> Any:
    """To nearest, ties away from zero, as cvt.rna.tf32 does: half of the last bit is added, the rest cut.

    The carry runs into the exponent as it should; infinities and NaNs, of the highest one, stay.
    """
    bits, exponent = tirx.reinterpret("uint32", value), tirx.const(0x7F800000, "uint32")
    half, kept = tirx.const(1 << (_TF32_CUT - 1), "uint32"), tirx.const(_TF32_KEPT, "uint32")
    rounded = tirx.reinterpret("float32", (bits + half) & kept)
    return tirx.Select(bits & exponent == exponent, value, rounded)


def _packed_shape(p: Product, columns_first: bool) -> tuple[int, int]:
    shape = (p.padded_columns, p.padded_inner)
    return shape if columns_first else shape[::-1]


def implicit_gemm(spec: ConvSpec, p: Product, columns_first: bool = True) -> list[te.Tensor]:
    """The matrix product over a filter from `pack` of the same order; `can_gather` must know the spec.

    Stages: ``gathered``, ``conv``, for split sums ``total``, and ``out``. out and residual are matrices of
    (pixels, channels). Returns data, filter, bias and residual where the spec has them, for split sums
    ``conv`` itself, which callers give the memory for, and out.
    """
    g = geometry(spec)
    data = te.placeholder(g.data_shape, spec.dtype, name="data")
    shape = _packed_shape(p, columns_first)
    weights = te.placeholder(shape, spec.filter_dtype, name="filter")
    matrix = (p.rows, p.columns)
    extra = epilogue_arguments(spec, matrix)
    gathered = _gathered(spec, g, p, data, border(spec, extra))
    dtype = spec.accumulator_dtype
    k = te.reduce_axis((0, p.depth), "k")

    def term(s: Any, m: Any, n: Any) -> Any:
        at = s * p.depth + k
        factor = weights[n, at] if columns_first else weights[at, n]
        return te.sum(gathered[m, at].astype(dtype) * factor.astype(dtype), axis=k)

    conv = te.compute((p.splits, p.padded_rows, p.padded_columns), term, name="conv")
    if p.splits == 1:
        out = te.compute(
            matrix, lambda m, n: epilogue(spec, conv[0, m, n], n, (m, n), extra), name="out"
        )
        return [data, weights, *extra, out]
    part = te.reduce_axis((0, p.splits), "part")
    total = te.compute(matrix, lambda m, n: te.sum(conv[part, m, n], axis=part), name="total")
    out = te.compute(matrix, lambda m, n: epilogue(spec, total[m, n], n, (m, n), extra), name="out")
    return [data, weights, *extra, conv, out]


def _gathered(spec: ConvSpec, g: Geometry, p: Product, data: te.Tensor, around: Any) -> te.Tensor:
    """What each output pixel is the sum of, side by side."""
    (sh, sw), (dh, dw), read = g.strides, g.dilations, reader(data, g, around=around)

    def at(m: Any, k: Any) -> Any:
        row, column = m // g.out_width, m % g.out_width
        tap, channel = k // g.in_channels, k % g.in_channels
        down, across = tap // g.kernel_width, tap % g.kernel_width
        value = read(
            row // g.out_height,
            row % g.out_height * sh + down * dh,
            column * sw + across * dw,
            channel,
        )
        inside = [
            *([m < p.rows] if p.padded_rows > p.rows else []),
            *([k < p.inner] if p.padded_inner > p.inner else []),
        ]
        if not inside:
            return value
        return te.if_then_else(tirx.all(*inside), value, tirx.const(0, data.dtype))

    return te.compute((p.padded_rows, p.padded_inner), at, name="gathered")
