"""A dense convolution's register tile where one number of data multiplies whole vectors of weights."""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.compute import conv2d
from tvmconv.compute.geometry import Geometry, geometry
from tvmconv.hardware import Function, Machine
from tvmconv.lowering.interface import function, prim_func
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import dense as tiled
from tvmconv.schedules.shared import dense_stages
from tvmconv.schedules.shared.dense import DenseDecisions


def apply(
    spec: ConvSpec, _machine: Machine, decisions: DenseDecisions, widen: bool = True
) -> Function:
    """Schedule `compute.conv2d.direct`; raises nothing for legal decisions.

    ``widen`` says whether halves and bytes are `compute.conv2d.widened` before they are multiplied.
    """
    block, g = decisions.channels, geometry(spec)
    loops = Loops(tvm.IRModule({"main": prim_func(conv2d.direct(spec, block, widen))}))
    tile = loops.get_sblock("conv")
    inlined = decisions.pad == "none"
    if inlined:
        loops.compute_inline(loops.get_sblock("padded"))

    def reduction(_job: Any) -> Any:
        return _schedule_tile(loops, tile, decisions.unroll, g, unroll_kernel=inlined)

    copied = dense_stages.is_copied(spec, g, widen) and not inlined
    tiled.schedule(loops, tile, spec, g, decisions, copied, reduction)
    packed = conv2d.packed_filter_shape(spec, block)
    pack = prim_func(conv2d.pack(spec, block, widen))
    return function(spec, loops.mod["main"], pack, packed)


def _schedule_tile(loops: Loops, tile: Any, unroll: int, g: Geometry, unroll_kernel: bool) -> Any:
    """Reduction outside, the whole tile unrolled inside it, its channels one vector.

    Returns the innermost loop of the reduction that is not unrolled.
    """
    n, h, w, o, kh, kw, ci = loops.get_loops(tile)[-7:]
    ci_outer, ci_inner = loops.split(ci, [None, unroll])
    loops.reorder(kh, kw, ci_outer, ci_inner, n, h, w, o)
    for loop in (ci_inner, n, h, w):
        loops.unroll(loop)
    if unroll_kernel:
        loops.unroll(kh)  # every tap by its number, so that those in the padding vanish
    if unroll_kernel or g.in_channels // g.groups == unroll:
        loops.unroll(kw)  # a stem: 3 channels x 3 columns are one contiguous run of 9 values
    loops.vectorize(o)
    init = loops.decompose_reduction(tile, kh)
    *zeroed, lanes = loops.get_loops(init)[-4:]
    for loop in zeroed:
        loops.unroll(loop)
    loops.vectorize(lanes)
    return ci_outer
