"""Dense convolution with the RISC-V vector extension: a register tile of pixels x channels.

THE TILE

A tile holds ``pixels`` output pixels x ``channels`` output channels in vector registers. RVV groups
registers: channels / lanes = m = 1, 2 or 4 registers are one operand. For every element of the reduction
the tile loads one group of weights and one scalar per pixel; vfmacc.vf takes the scalar from a register of
the floating-point file, so that a broadcast costs no vector register:

    registers   (pixels + 1) * m <= 32
    loads/FMA   (pixels + m) / (pixels * m), which must stay under load ports / FMA ports = 1
    latency     pixels * m accumulators >= FMA latency * ports = 5

    m = 1: 31 x 1 register  = 32 registers, 1.03 loads/FMA: a load too many for every tile
    m = 2: 15 x 2 registers = 32 registers, 0.57 loads/FMA
    m = 4:  7 x 4 registers = 32 registers, 0.39 loads/FMA: what the default takes where it divides

THE LOOPS

    for image, row                            parallel
      for block of channels | pixel tile      knob "order": which of the two is outside
        for kh, kw, ci                        the accumulators never leave their registers
        epilogue, store

Data is copied into a padded image first where windows leave it. Where the layout is NCHW, or no block
divides the channels of a group, ``out`` is a pass of its own.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import Schedule as Loops

from tvmconv.compute import conv2d
from tvmconv.compute.geometry import Geometry, geometry, is_pointwise
from tvmconv.hardware import Choice, Decisions, Function, Knob, Machine, Schedule
from tvmconv.lowering.interface import SPLIT_AT, prim_func, with_interface
from tvmconv.problem.rules import ITEM_BYTES
from tvmconv.problem.spec import ConvSpec

WEIGHTS_OUTER, PIXELS_OUTER = "weights_outer", "pixels_outer"

# Registers in a group; 8 would leave room for three pixels.
_GROUPS = (4, 2, 1)


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Every conv2d with an output."""
    return spec.op == "conv2d" and not spec.is_empty


def knobs(spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile, the order of the two loops over tiles, and how much of the reduction is unrolled."""
    g = geometry(spec)
    group_in = g.in_channels // g.groups
    return (
        Knob("channels", tuple(_blocks(spec, machine))),
        Knob("pixels", tuple(_pixels(g.out_width, machine.vector_registers - 1))),
        Knob("order", (WEIGHTS_OUTER, PIXELS_OUTER)),
        Knob("unroll", tuple(n for n in (1, 2, 4) if group_in % n == 0)),
    )


def _blocks(spec: ConvSpec, machine: Machine) -> list[int]:
    """Widths of the packed filter: groups of registers that divide the channels, else one register."""
    group, _ = conv2d.filter_blocks(spec, 1)
    lanes = machine.lanes(spec.accumulator_dtype)
    return [m * lanes for m in _GROUPS if group % (m * lanes) == 0] or [lanes]


def _pixels(width: int, most: int) -> list[int]:
    """Lengths of a tile, longest first, of which at least three quarters of a row's tiles are used."""
    lengths = range(min(width, most), 0, -1)
    return [n for n in lengths if 4 * width >= 3 * n * -(-width // n) or n == 1]


def legal(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    """Accumulators and one group of weights fit the registers."""
    m = int(decisions["channels"]) // machine.lanes(spec.accumulator_dtype)
    return (int(decisions["pixels"]) + 1) * m <= machine.vector_registers


def default(spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    """The tile with the least estimated time per multiply-add, and an order that spares the caches."""
    space = {knob.name: knob.candidates for knob in knobs(spec, machine)}
    weights = spec.reduction_length * (spec.out_channels // spec.groups) * ITEM_BYTES[spec.dtype]
    points: list[dict[str, Choice]] = [
        {
            "channels": channels,
            "pixels": pixels,
            "order": WEIGHTS_OUTER if 2 * weights > machine.l2_bytes else PIXELS_OUTER,
            "unroll": 1,
        }
        for channels in space["channels"]
        for pixels in space["pixels"]
    ]
    return min(
        (point for point in points if legal(spec, machine, point)),
        key=lambda point: _cycles_per_fma(spec, machine, point),
    )


def _cycles_per_fma(spec: ConvSpec, machine: Machine, decisions: Decisions) -> float:
    """The largest of arithmetic, loads and latency, over the multiply-adds of an average tile."""
    pixels = int(decisions["pixels"])
    m = int(decisions["channels"]) // machine.lanes(spec.accumulator_dtype)
    loads = (pixels + m) / machine.load_ports
    cycles = max(pixels * m / machine.fma_ports, loads, machine.fma_latency) + loads / 8
    columns = geometry(spec).out_width
    return cycles * -(-columns // pixels) / (columns * m)


def apply(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """Schedule `tvmconv.compute.conv2d.direct`."""
    block, g = int(decisions["channels"]), geometry(spec)
    loops = Loops(tvm.IRModule({"main": prim_func(conv2d.direct(spec, block))}))
    group, _ = conv2d.filter_blocks(spec, block)
    _schedule(loops, g, decisions, fused=g.channels_last and group % block == 0)
    return Function(
        with_interface(loops.mod["main"], _caller_shapes(spec, g), aligned=frozenset({"filter"})),
        with_interface(prim_func(conv2d.pack(spec, block)), {}, aligned=frozenset({"packed"})),
        conv2d.packed_filter_shape(spec, block),
    )


def _schedule(loops: Loops, g: Geometry, decisions: Decisions, fused: bool) -> None:
    pixels, by_weights = int(decisions["pixels"]), decisions["order"] == WEIGHTS_OUTER
    tile, out = loops.get_sblock("conv"), loops.get_sblock("out")
    store = out if fused else loops.cache_write(tile, 0, "local")
    if not fused:
        _parallel_rows(loops, out)
    if g.needs_padding or not g.channels_last:
        _parallel_rows(loops, loops.get_sblock("padded"))

    n, h, w, o = loops.get_loops(store)
    pixel_tiles, p = loops.split(w, [None, pixels])
    channel_tiles, lane = loops.split(o, [None, int(decisions["channels"])])
    nest = [channel_tiles, pixel_tiles] if by_weights else [pixel_tiles, channel_tiles]
    loops.reorder(n, h, *nest, p, lane)
    loops.compute_at(tile, nest[-1], preserve_unit_loops=True)
    if fused:
        loops.set_scope(tile, 0, "local")
    # A pointwise convolution is one long row: its outer tiles are the jobs. Fused here, because TVM cannot
    # prove a parallel loop safe once the reduction is decomposed.
    one_row = g.batch == g.out_height == 1
    job = loops.fuse(n, h, nest[0]) if one_row else loops.fuse(n, h)
    loops.parallel(job)
    _schedule_tile(loops, tile, int(decisions["unroll"]))
    loops.unroll(p)
    loops.vectorize(lane)
    # The ragged last tile of a row is compiled for itself.
    rows_tiles = job if one_row and not by_weights else pixel_tiles
    loops.annotate(rows_tiles, SPLIT_AT, [g.out_width // pixels])


def _schedule_tile(loops: Loops, tile: Any, unroll: int) -> None:
    """Reduction outside, the whole tile unrolled inside it, its channels one vector."""
    n, h, w, o, kh, kw, ci = loops.get_loops(tile)[-7:]
    ci_outer, ci_inner = loops.split(ci, [None, unroll])
    loops.reorder(kh, kw, ci_outer, ci_inner, n, h, w, o)
    for loop in (ci_inner, n, h, w):
        loops.unroll(loop)
    loops.vectorize(o)
    init = loops.decompose_reduction(tile, kh)
    *zeroed, lanes = loops.get_loops(init)[-4:]
    for loop in zeroed:
        loops.unroll(loop)
    loops.vectorize(lanes)


def _parallel_rows(loops: Loops, block: Any) -> None:
    """A pass of its own over an image, which LLVM vectorises."""
    first, second, *_ = loops.get_loops(block)
    loops.parallel(loops.fuse(first, second))


def _caller_shapes(spec: ConvSpec, g: Geometry) -> dict[str, tuple[int, ...]]:
    """Images for the caller where the loops see one row of pixels."""
    if not is_pointwise(spec):
        return {}
    images = (spec.batch, spec.in_height, spec.in_width)
    data, out = (*images, g.in_channels), (*images, g.out_channels)
    return {"data": data, "residual": out, "out": out}


TILED = Schedule("riscv.conv2d.tiled", accepts, knobs, legal, default, apply)
