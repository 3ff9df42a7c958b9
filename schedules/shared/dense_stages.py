"""What the loop nests of dense convolutions share on any CPU: padding, borders, the caller's shapes."""

from __future__ import annotations

from typing import Any

from tvm.s_tir import Schedule as Loops

from tvmconv.compute import conv2d
from tvmconv.compute.geometry import Geometry, geometry
from tvmconv.hardware import Choice
from tvmconv.lowering.interface import SPLIT_AT
from tvmconv.problem.arguments import window_extent
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import tile_costs


def is_fused(spec: ConvSpec, g: Geometry, block: int) -> bool:
    """Whether the epilogue can store a tile where it belongs."""
    group, _ = conv2d.filter_blocks(spec, block)
    return g.channels_last and group % block == 0


def is_copied(spec: ConvSpec, g: Geometry, widen: bool = True) -> bool:
    """Whether stage ``padded`` exists: data is padded, turned to NHWC or widened on the way."""
    return g.needs_padding or not g.channels_last or _is_widened(spec, widen)


def _is_widened(spec: ConvSpec, widen: bool) -> bool:
    return widen and conv2d.widened(spec) != spec.dtype


def pads(spec: ConvSpec, widen: bool = True) -> tuple[Choice, ...]:
    """Where a schedule may put that stage; what is widened cannot be left where it is."""
    g = geometry(spec)
    if not g.channels_last or 0 in (g.in_height, g.in_width):
        return ("image",)
    if _is_widened(spec, widen):
        return ("image", "rows") if g.out_height > 1 else ("image",)
    return ("image", "rows", "none") if g.needs_padding else ("image",)


def sees_little(spec: ConvSpec) -> bool:
    """Whether most products are with zeros of the padding, so that testing each tap costs less than they do.

    33x33, dilation 36, batch 4: 3.1 ms in place of 32; 24 11 of 23; 12, where 57 % of the products are with
    the image, 16 against 13 (Zen 5, 2026-11).
    """
    return 2 * spec.needed_macs <= spec.macs


def split_points(g: Geometry, pixels: int, unpadded: bool) -> tuple[list[int], list[int]]:
    """Where rows and tiles of pixels change their nature: at the border, or at the ragged last tile."""
    if not unpadded:
        return [0], [g.out_width // pixels]
    high = window_extent(g.kernel_height, g.dilations[0])
    wide = window_extent(g.kernel_width, g.dilations[1])
    return (
        tile_costs.interior(g.out_height, 1, g.in_height, g.pads[0], g.strides[0], high),
        tile_costs.interior(g.out_width, pixels, g.in_width, g.pads[1], g.strides[1], wide),
    )


def schedule_padding(loops: Loops, g: Geometry, at: Any | None) -> None:
    """Copy rows with one contiguous inner loop over (column, channel), free of tests inside the image.

    Copying costs 2 bytes of cache traffic per byte of data: 1-3 % of a 3x3 layer with 64 channels.
    """
    padded = loops.get_sblock("padded")
    if at is not None:
        loops.compute_at(padded, at, preserve_unit_loops=True)
    n, h, *columns = loops.get_loops(padded)[-len(loops.get(padded).iter_vars) :]
    row = loops.fuse(*columns) if len(columns) > 1 else columns[0]
    left = g.pads[1]
    if g.channels_last:
        loops.annotate(row, SPLIT_AT, [left * g.in_channels, (left + g.in_width) * g.in_channels])
    if at is None:
        loops.parallel(loops.fuse(n, h))


def schedule_out(loops: Loops, out: Any) -> None:
    """The separate last pass: parallel over the outer two loops, LLVM vectorises the rest."""
    first, second, _, _ = loops.get_loops(out)
    loops.parallel(loops.fuse(first, second))
