"""What the loop nests of dense convolutions share on any CPU: padding, borders, the caller's shapes."""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir import Schedule as Loops

from tvmconv.arguments import window_extent
from tvmconv.compute import conv2d
from tvmconv.compute.geometry import Geometry, is_pointwise
from tvmconv.lowering import SPLIT_AT
from tvmconv.nests import tiles
from tvmconv.spec import ConvSpec


def is_fused(spec: ConvSpec, g: Geometry, block: int) -> bool:
    """Whether the epilogue can store a tile where it belongs."""
    group, _ = conv2d.filter_blocks(spec, block)
    return g.channels_last and group % block == 0


def pads_image(g: Geometry) -> bool:
    """Whether the image needs a border of zeros that a schedule may place."""
    return g.needs_padding and g.channels_last and 0 not in (g.in_height, g.in_width)


def split_points(g: Geometry, pixels: int, unpadded: bool) -> tuple[list[int], list[int]]:
    """Where rows and tiles of pixels change their nature: at the border, or at the ragged last tile."""
    if not unpadded:
        return [0], [g.out_width // pixels]
    high = window_extent(g.kernel_height, g.dilations[0])
    wide = window_extent(g.kernel_width, g.dilations[1])
    return (
        tiles.interior(g.out_height, 1, g.in_height, g.pads[0], g.strides[0], high),
        tiles.interior(g.out_width, pixels, g.in_width, g.pads[1], g.strides[1], wide),
    )


def schedule_padding(loops: Loops, g: Geometry, at: Any | None) -> None:
    """Copy rows with one contiguous inner loop over (column, channel), free of tests inside the image.

    Copying costs 2 bytes of cache traffic per byte of data: 1-3 % of a 3x3 layer with 64 channels.
    """
    padded = loops.get_sblock("padded")
    if at is not None:
        loops.compute_at(padded, at, preserve_unit_loops=True)
    n, h, w, c = loops.get_loops(padded)[-4:]
    row = loops.fuse(w, c)
    left = g.pads[1]
    if g.channels_last:
        loops.annotate(row, SPLIT_AT, [left * g.in_channels, (left + g.in_width) * g.in_channels])
    if at is None:
        loops.parallel(loops.fuse(n, h))


def schedule_out(loops: Loops, out: Any) -> None:
    """The separate last pass: parallel over the outer two loops, LLVM vectorises the rest."""
    first, second, _, _ = loops.get_loops(out)
    loops.parallel(loops.fuse(first, second))


def caller_shapes(spec: ConvSpec, g: Geometry) -> dict[str, tuple[int, ...]]:
    """Images for the caller where the loops see one row of pixels."""
    if not is_pointwise(spec):
        return {}
    images = (spec.batch, spec.in_height, spec.in_width)
    data, out = (*images, g.in_channels), (*images, g.out_channels)
    return {"data": data, "residual": out, "out": out}


def widen(loops: Loops, stage: Any, dtype: str) -> None:
    """Keep a stage of converted data in ``dtype``, so that it is converted once, and in whole vectors.

    Its readers then narrow and widen again, until `without_round_trips`.
    """
    loops.unsafe_set_dtype(stage, 0, dtype)


def without_round_trips(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Take out conversions of a stage that `widen` changed to the dtype that it has had since."""

    def folded(node: Any) -> Any:
        inner = node.value.value if isinstance(node.value, tirx.Cast) else None
        kept = isinstance(inner, tvm.ir.TensorLoad) and inner.ty == node.ty
        return inner if kept else node

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.Cast, folded)))
