"""The loop nest of a depthwise convolution of words: rows x columns of outputs, a vector of channels.

Words of a row of inputs are put together where an output's row needs them; LLVM finds those that it has
already.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.compute import depthwise_conv2d_dot
from tvmconv.compute.geometry import geometry
from tvmconv.hardware import Function
from tvmconv.lowering.dot_calls import DOT, WORDS
from tvmconv.lowering.interface import SPLIT_AT, function, prim_func
from tvmconv.problem.arguments import window_extent
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import bias_start, tile_costs
from tvmconv.schedules.shared.depthwise import DepthwiseDecisions

Definition = tuple[str, str]


def apply(
    spec: ConvSpec,
    decisions: DepthwiseDecisions,
    lanes: int,
    calls: tuple[Definition, Definition] | None,
    operand: str | None,
) -> Function:
    """Schedule `compute.depthwise_conv2d_dot.direct`; raises nothing for legal decisions.

    ``calls`` are names and definitions of the function that makes words of "channels" channels, and of that
    which adds their dot products to vectors of ``lanes`` sums. Without, on a rehearsal's machine, products
    are computed one by one. ``operand`` is the kind of byte that is multiplied.
    """
    func = prim_func(depthwise_conv2d_dot.direct(spec, operand))
    if spec.bias:
        func = bias_start.at_bias(func, lambda n, h, w, k: k)
    loops = Loops(tvm.IRModule({"main": func}))
    conv, words, out = (loops.get_sblock(name) for name in ("conv", "words", "out"))
    n, h, w, o = loops.get_loops(out)
    row_tiles, r = loops.split(h, [None, decisions.rows])
    column_tiles, c = loops.split(w, [None, decisions.columns])
    channel_tiles, v = loops.split(o, [None, decisions.channels])
    loops.reorder(n, row_tiles, channel_tiles, column_tiles, r, c, v)
    loops.compute_at(conv, column_tiles, preserve_unit_loops=True)
    loops.set_scope(conv, 0, "local")
    # Before the reduction is decomposed: afterwards TVM cannot prove it safe.
    loops.parallel(row_tiles)
    _schedule_sums(loops, conv, words, lanes, calls)
    for loop in (r, c):
        loops.unroll(loop)
    loops.vectorize(v)
    rows, columns = _split_points(spec, decisions)
    loops.annotate(row_tiles, SPLIT_AT, rows)
    loops.annotate(column_tiles, SPLIT_AT, columns)
    packed = depthwise_conv2d_dot.packed_filter_shape(spec, operand)
    pack = prim_func(depthwise_conv2d_dot.pack(spec, operand))
    definitions = None if calls is None else "".join(definition for _, definition in calls)
    return function(spec, loops.mod["main"], pack, packed, llvm_ir=definitions)


def _schedule_sums(
    loops: Loops,
    conv: Any,
    words: Any,
    lanes: int,
    calls: tuple[Definition, Definition] | None,
) -> None:
    """A row of outputs, a row of the kernel, the words of that row of inputs, and their products."""
    n, h, w, k, kh, kw, r = loops.get_loops(conv)[-7:]
    vector, lane = loops.split(k, [None, lanes])
    loops.reorder(n, h, kh, w, kw, vector, lane, r)
    loops.compute_at(words, kh, preserve_unit_loops=True)
    loops.set_scope(words, 0, "local")
    zeros = loops.get_loops(loops.decompose_reduction(conv, kh))
    loops.vectorize(zeros[-1])
    if calls is None:  # all of it unrolled would take LLVM minutes
        return
    *still, channel, _ = loops.get_loops(words)[-5:]
    for loop in (n, h, kh, w, kw, vector, *still, *zeros[-3:-1]):
        loops.unroll(loop)
    (make, _), (dot, _) = calls
    loops.annotate(channel, WORDS, make)
    loops.annotate(lane, DOT, dot)  # not before: the zeros would inherit it


def _split_points(spec: ConvSpec, decisions: DepthwiseDecisions) -> tuple[list[int], list[int]]:
    """Tile numbers where the interior begins and ends, for rows and for columns."""
    g, rows, columns = geometry(spec), decisions.rows, decisions.columns
    high = window_extent(g.kernel_height, g.dilations[0])
    wide = depthwise_conv2d_dot.cut(spec).window
    return (
        tile_costs.interior(g.out_height, rows, g.in_height, g.pads[0], g.strides[0], high),
        tile_costs.interior(g.out_width, columns, g.in_width, g.pads[1], g.strides[1], wide),
    )
