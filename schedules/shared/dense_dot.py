"""The loop nest of a dense convolution of words on any CPU that multiplies them.

"unroll" counts words.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.compute import conv2d_dot
from tvmconv.compute.geometry import geometry
from tvmconv.hardware import Choice, Function
from tvmconv.lowering.dot_calls import DOT
from tvmconv.lowering.interface import function, prim_func
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import dense as tiled
from tvmconv.schedules.shared.dense import DenseDecisions


def pads(spec: ConvSpec, operand: str | None) -> tuple[Choice, ...]:
    """Where a schedule may put the copy of the data, if there is one."""
    g = geometry(spec)
    banded = conv2d_dot.is_copied(spec, g, operand) and g.channels_last and g.out_height > 1
    return ("image", "rows") if banded else ("image",)


def apply(
    spec: ConvSpec,
    decisions: DenseDecisions,
    lanes: int,
    dot: tuple[str, str] | None,
    operand: str | None,
    load_words: bool = False,
    to_bytes: tuple[str, str] | None = None,
) -> Function:
    """Schedule `compute.conv2d_dot.direct` on vectors of ``lanes`` channels; legal decisions raise nothing.

    ``dot`` is the name and the definition of the function for a vector. Without, on a rehearsal's machine,
    products are computed one by one. ``operand`` is the kind of byte that it takes. With ``load_words`` the
    words of a step are loaded together, for instructions that take one by its lane. ``to_bytes`` are what the
    functions that store a pixel's channels of a quantised spec are called, and their definitions.
    """
    block, g = decisions.channels, geometry(spec)
    loops = Loops(tvm.IRModule({"main": prim_func(conv2d_dot.direct(spec, block, operand))}))
    tile = loops.get_sblock("conv")
    # Before anything has a predicate: TVM caches reads of complete blocks only.
    data = loops.cache_read(tile, 0, "local") if load_words else None
    reduction: list[Any] = []

    def arrange() -> None:
        reduction.extend(
            _schedule_tile(loops, tile, data, decisions.unroll, lanes, dot is not None)
        )

    def reduce(_job: Any) -> Any:
        outermost, innermost, lane = reduction
        _zero_outside(loops, tile, outermost)
        if dot is not None:  # not before: the zeros would inherit it
            loops.annotate(lane, DOT, dot[0])
        return innermost

    copied = conv2d_dot.is_copied(spec, g, operand)
    calls = [each for each in (dot, to_bytes) if each is not None]
    stores = None if to_bytes is None else to_bytes[0]
    tiled.schedule(loops, tile, spec, g, decisions, copied, reduce, arrange, stores)
    packed = conv2d_dot.packed_filter_shape(spec, block, operand)
    pack = prim_func(conv2d_dot.pack(spec, block, operand))
    definition = "".join(definition for _, definition in calls) if calls else None
    return function(spec, loops.mod["main"], pack, packed, definition)


def _schedule_tile(
    loops: Loops, tile: Any, data: Any, unroll: int, lanes: int, called: bool
) -> tuple[Any, Any, Any]:
    """Reduction outside, the whole tile unrolled inside it, one dot product for each vector.

    Returns the loops of the reduction, the outermost and the innermost that is not unrolled, and that over
    the lanes of a vector.
    """
    n, h, w, o, kh, kw, ki, r = loops.get_loops(tile)[-8:]
    outer, inner = loops.split(ki, [None, unroll])
    vector, lane = loops.split(o, [None, lanes])
    loops.reorder(kh, kw, outer, inner, n, h, w, vector, lane, r)
    if data is not None:
        loops.compute_at(data, outer, preserve_unit_loops=True)
        *still, channel = loops.get_loops(data)[-4:]
        for loop in still:
            loops.unroll(loop)
        loops.vectorize(channel)
    for loop in (inner, n, h, w, vector):
        loops.unroll(loop)
    if not called:
        loops.reorder(r, lane)
        loops.unroll(r)
        loops.vectorize(lane)
    return kh, outer, lane


def _zero_outside(loops: Loops, tile: Any, reduction: Any) -> None:
    init = loops.decompose_reduction(tile, reduction)
    *zeroed, zeros = loops.get_loops(init)[-5:]
    for loop in zeroed:
        loops.unroll(loop)
    loops.vectorize(zeros)
