"""Dense convolution of bytes on ARM with matrix products: 2 pixels x 2 channels x 8 bytes an instruction.

A register holds the sums of two pixels and two channels. Eight bytes of each pixel are joined to one operand
(``zip1``, ``zip2`` of 64 bits: a load of 16 bytes of each of two pixels gives two operands), the filter's
lie joined in memory. A tile's instructions for two steps of eight input channels:

    6 x 12    36 smmla = 1152 multiply-adds of 36 + 6 loads and 6 zips of data + 6 pair loads of weights + 3
    4 x 16    32 smmla = 1024                  32 + 4       + 4                + 8                       + 3

llvm-mca gives 4 x 16's loop 106 multiply-adds a cycle on a Neoverse V1, 6 x 12's 101, where conv2d_dot.py's
5 x 16 has 64 (2026-11; 128 and 64 are the most). 6 x 16 spills: 65. No emulator here counts the instruction;
values are checked on QEMU's core.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.compute import conv2d_matrix
from tvmconv.compute.conv2d import filter_blocks
from tvmconv.compute.geometry import geometry, round_up
from tvmconv.hardware import Choice, Function, Machine
from tvmconv.lowering.dot_calls import MATRIX
from tvmconv.lowering.interface import function, prim_func
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.arm import dot_code
from tvmconv.schedules.shared import dense as tiled
from tvmconv.schedules.shared import dense_space
from tvmconv.schedules.shared.dense import DenseDecisions

_SIDE = 2


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Bytes in whole steps, blocks of channels that divide them, on a machine with the instruction."""
    return (
        dense_space.accepts(spec, machine)
        and dot_code.has_matrix(spec.dtype, machine)
        and spec.data_format == "NHWC"
        and conv2d_matrix.fits(spec)
        and bool(_channel_blocks(spec, machine))
        and geometry(spec).out_width >= _SIDE
    )


def _channel_blocks(spec: ConvSpec, _machine: Machine) -> list[int]:
    group, _ = filter_blocks(spec, 1)
    return [block for block in (16, 12, 8, 4) if group % block == 0]


def _lengths(spec: ConvSpec, _machine: Machine) -> list[int]:
    width = round_up(geometry(spec).out_width, _SIDE)
    return [pixels for pixels in range(_SIDE, 18, _SIDE) if pixels <= width]


def _unrolls(spec: ConvSpec, _machine: Machine) -> list[int]:
    return [2, 1] if spec.filter_shape[2] // conv2d_matrix.STEP_BYTES % 2 == 0 else [1]


def _pads(spec: ConvSpec, _machine: Machine) -> list[Choice]:
    g = geometry(spec)
    return ["image", "rows"] if g.needs_padding and g.out_height > 1 else ["image"]


def _fits(_spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> bool:
    """Sums, data and weights of a step."""
    pixels, channels = tile.pixels, tile.channels
    live = pixels * channels // _SIDE**2 + pixels + channels // _SIDE
    return pixels == _SIDE or live <= machine.cpu.vector_registers


def _cycles(spec: ConvSpec, _machine: Machine, tile: DenseDecisions) -> float:
    """Instructions of a step, as in the table above, for each useful product."""
    products = tile.pixels * tile.channels / _SIDE**2
    width = geometry(spec).out_width
    useful = (3 + width / round_up(width, tile.pixels)) / 4
    return float((products + tile.pixels + tile.channels / 4 + 2) / products / useful)


def apply(spec: ConvSpec, machine: Machine, decisions: DenseDecisions) -> Function:
    """Schedule `compute.conv2d_matrix.direct`; raises nothing for legal decisions."""
    block, g = decisions.channels, geometry(spec)
    matrix = dot_code.matrix(spec.dtype, machine)
    loops = Loops(tvm.IRModule({"main": prim_func(conv2d_matrix.direct(spec, block))}))
    tile = loops.get_sblock("conv")
    # Before anything has a predicate: TVM caches reads of complete blocks only.
    data = loops.cache_read(tile, 0, "local")
    reduction: list[Any] = []

    def arrange() -> None:
        reduction.extend(_schedule_tile(loops, tile, data, decisions.unroll, matrix is not None))

    def reduce(_job: Any) -> Any:
        outermost, innermost, row = reduction
        *zeroed, i, j = loops.get_loops(loops.decompose_reduction(tile, outermost))[-6:]
        for loop in zeroed:
            loops.unroll(loop)
        loops.vectorize(loops.fuse(i, j))
        if matrix is not None:  # not before: the zeros would inherit it
            loops.annotate(row, MATRIX, matrix[0])
        return innermost

    tiled.schedule(loops, tile, spec, g, decisions, g.needs_padding, reduce, arrange)
    packed = conv2d_matrix.packed_filter_shape(spec, block)
    pack = prim_func(conv2d_matrix.pack(spec, block))
    definition = None if matrix is None else matrix[1]
    return function(spec, loops.mod["main"], pack, packed, definition)


def _schedule_tile(
    loops: Loops, tile: Any, data: Any, unroll: int, called: bool
) -> tuple[Any, Any, Any]:
    """Reduction outside, the whole tile unrolled inside it.

    Returns the loops of the reduction, the outermost and the innermost that is not unrolled, and that over
    the rows of a product.
    """
    n, h, pair, channels, i, j, kh, kw, ki, r = loops.get_loops(tile)[-10:]
    outer, inner = loops.split(ki, [None, unroll])
    loops.reorder(kh, kw, outer, inner, n, h, pair, channels, i, j, r)
    loops.compute_at(data, outer, preserve_unit_loops=True)
    *still, channel = loops.get_loops(data)[-4:]
    loops.vectorize(channel)
    if called:
        for loop in (*still, inner, n, h, pair, channels):
            loops.unroll(loop)
    return kh, outer, i


MATRICES = dense_space.schedule(
    "arm.conv2d.matrix",
    dense_space.Instructions(
        blocks=_channel_blocks,
        lengths=_lengths,
        unrolls=_unrolls,
        pads=_pads,
        fits=_fits,
        cycles=_cycles,
        apply=apply,
    ),
    accepts,
)
SCHEDULES = (MATRICES,)
