"""The loop nest of a dense convolution on any CPU: register tiles of pixels x channels, and their jobs.

Decisions: "pixels" and "channels" of a tile, "rows" of a job, "order" of the loops over tiles, where the
stage ``padded`` goes ("pad"), and where hardware offers it "prefetch" and "unroll".

    for job (image, band of rows)            parallel
      for block of channels | pixel tile     "weights_outer": a panel of weights stays in cache
        for pixel tile | block of channels   "pixels_outer": a strip of pixels does
          the tile's sums, arranged by the hardware; epilogue, store
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm.s_tir import Schedule as Loops

from tvmconv.compute.conv2d import filter_blocks
from tvmconv.compute.geometry import Geometry, geometry
from tvmconv.hardware import Decisions
from tvmconv.lowering.interface import SPLIT_AT
from tvmconv.lowering.prefetching import PANEL, TILES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import dense_stages

WEIGHTS_OUTER, PIXELS_OUTER = "weights_outer", "pixels_outer"


def jobs(spec: ConvSpec, decisions: Decisions) -> int:
    """Parallel jobs of "weights_outer" (blocks of channels in each band of rows), or of padded bands."""
    g = geometry(spec)
    _, blocks = filter_blocks(spec, int(decisions["channels"]))
    bands = g.batch * (g.out_height // int(decisions["rows"]))
    return bands if decisions["pad"] == "rows" else bands * g.groups * blocks


def schedule(
    loops: Loops,
    tile: Any,
    spec: ConvSpec,
    g: Geometry,
    decisions: Decisions,
    copied: bool,
    reduce: Callable[[Any], Any],
    arrange: Callable[[], None] = lambda: None,
) -> None:
    """Schedule everything around the sums, which block ``tile`` computes.

    ``copied`` says whether a stage ``padded`` is computed before them. ``reduce`` is given the loop over
    jobs, decomposes the reduction of one tile and returns its innermost loop that is not unrolled;
    ``arrange`` is called before the padding finds its place, for what reads it.
    """
    pixels, by_weights = int(decisions["pixels"]), decisions["order"] == WEIGHTS_OUTER
    fused = dense_stages.is_fused(spec, g, int(decisions["channels"]))
    pad, out = str(decisions["pad"]), loops.get_sblock("out")
    store = out if fused else loops.cache_write(tile, 0, "local")
    if not fused:
        dense_stages.schedule_out(loops, out)

    n, h, w, o = loops.get_loops(store)
    bands, rows = loops.split(h, [None, int(decisions["rows"])])
    pixel_tiles, m = loops.split(w, [None, pixels])
    channel_tiles, v = loops.split(o, [None, int(decisions["channels"])])
    inner = [channel_tiles, rows, pixel_tiles] if by_weights else [rows, pixel_tiles, channel_tiles]
    nest = [n, bands, *inner]
    loops.reorder(*nest, m, v)
    loops.compute_at(tile, nest[-1], preserve_unit_loops=True)
    if fused:
        loops.set_scope(tile, 0, "local")

    # A padded band belongs to one job; one long row of pixels is cut into jobs tile by tile.
    one_row = g.out_height == 1 and g.batch == 1 and not by_weights
    job = loops.fuse(*nest[: 2 if pad == "rows" else 4 if one_row else 3])
    arrange()
    if copied:
        dense_stages.schedule_padding(loops, g, at=job if pad == "rows" else None)
    loops.parallel(job)  # before the reduction is decomposed: afterwards TVM cannot prove it safe
    reduction = reduce(job)
    if by_weights and decisions.get("prefetch"):
        block = int(decisions["channels"])
        panel = g.kernel_height * g.kernel_width * (g.in_channels // g.groups) * block
        loops.annotate(rows, TILES, [2])
        loops.annotate(reduction, PANEL, [panel, panel, int(decisions["unroll"]) * block])
    loops.vectorize(v)
    loops.unroll(m)

    row_points, column_points = dense_stages.split_points(g, pixels, pad == "none")
    loops.annotate(job if one_row and pad != "rows" else pixel_tiles, SPLIT_AT, column_points)
    # A job is a row of its own number only where nothing else is fused into it.
    job_is_row = g.batch == 1 and int(decisions["rows"]) == g.out_height and not one_row
    if by_weights or (job_is_row and pad != "rows"):
        loops.annotate(rows if by_weights else job, SPLIT_AT, row_points)
