"""The loop nest of a dense convolution on any CPU: register tiles of pixels x channels, and their jobs.

for job (image, band of rows)            parallel
  for block of channels | pixel tile     "weights_outer": a panel of weights stays in cache
    for pixel tile | block of channels   "pixels_outer": a strip of pixels does
      the tile's sums, arranged by the hardware; epilogue, store
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm.s_tir import Schedule as Loops

from tvmconv.compute.conv2d import filter_blocks
from tvmconv.compute.geometry import Geometry, geometry
from tvmconv.lowering.dot_calls import BYTES
from tvmconv.lowering.interface import SPLIT_AT
from tvmconv.lowering.prefetching import PANEL, TILES
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import dense_stages

WEIGHTS_OUTER, PIXELS_OUTER = "weights_outer", "pixels_outer"


@dataclass(frozen=True)
class DenseDecisions:
    """What is decided of a dense convolution.

    Attributes:
        channels, pixels: of a register tile.
        order: of the loops over tiles.
        pad: where the stage ``padded`` goes.
        rows: of a job.
        unroll: steps of the reduction that are unrolled.
        prefetch: whether the next block's weights are fetched while one is used.
    """

    channels: int
    pixels: int
    order: str
    pad: str
    rows: int
    unroll: int = 1
    prefetch: int = 0

    @property
    def by_weights(self) -> bool:
        """Whether blocks of channels are the outer loop over tiles."""
        return self.order == WEIGHTS_OUTER


def jobs(spec: ConvSpec, decisions: DenseDecisions) -> int:
    """Parallel jobs of "weights_outer" (blocks of channels in each band of rows), or of padded bands."""
    g = geometry(spec)
    _, blocks = filter_blocks(spec, decisions.channels)
    bands = g.batch * (g.out_height // decisions.rows)
    return bands if decisions.pad == "rows" else bands * g.groups * blocks


def schedule(
    loops: Loops,
    tile: Any,
    spec: ConvSpec,
    g: Geometry,
    decisions: DenseDecisions,
    copied: bool,
    reduce: Callable[[Any], Any],
    arrange: Callable[[], None] = lambda: None,
    to_bytes: str | None = None,
    between: Sequence[Any] = (),
) -> None:
    """Schedule everything around the sums, which block ``tile`` computes.

    ``copied`` says whether a stage ``padded`` is computed before them. ``reduce`` is given the loop over
    jobs, decomposes the reduction of one tile and returns its innermost loop that is not unrolled;
    ``arrange`` is called before the padding finds its place, for what reads it. ``to_bytes`` is what the
    functions are called, if there are some, that store a pixel's channels of a quantised spec. ``between``
    are blocks from the output's back to the sums, which a tile computes too.
    """
    pixels, by_weights, pad = decisions.pixels, decisions.by_weights, decisions.pad
    fused = dense_stages.is_fused(spec, g, decisions.channels)
    out = loops.get_sblock("out")
    store = out if fused else loops.cache_write(tile, 0, "local")
    if not fused:
        dense_stages.schedule_out(loops, out)

    n, h, w, o = loops.get_loops(store)
    bands, rows = loops.split(h, [None, decisions.rows])
    pixel_tiles, m = loops.split(w, [None, pixels])
    channel_tiles, v = loops.split(o, [None, decisions.channels])
    inner = [channel_tiles, rows, pixel_tiles] if by_weights else [rows, pixel_tiles, channel_tiles]
    nest = [n, bands, *inner]
    loops.reorder(*nest, m, v)
    for block in (*between, tile):
        loops.compute_at(block, nest[-1], preserve_unit_loops=True)
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
    if by_weights and decisions.prefetch:
        block = decisions.channels
        panel = g.kernel_height * g.kernel_width * (g.in_channels // g.groups) * block
        loops.annotate(rows, TILES, [2])
        loops.annotate(reduction, PANEL, [panel, panel, decisions.unroll * block])
    if to_bytes is not None and fused:
        loops.annotate(v, BYTES, to_bytes)
    else:
        loops.vectorize(v)
    loops.unroll(m)

    row_points, column_points = dense_stages.split_points(g, pixels, pad == "none")
    loops.annotate(job if one_row and pad != "rows" else pixel_tiles, SPLIT_AT, column_points)
    # A job is a row of its own number only where nothing else is fused into it.
    job_is_row = g.batch == 1 and decisions.rows == g.out_height and not one_row
    if by_weights or (job_is_row and pad != "rows"):
        loops.annotate(rows if by_weights else job, SPLIT_AT, row_points)
