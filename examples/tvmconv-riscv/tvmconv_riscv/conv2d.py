"""Dense convolution with the RISC-V vector extension: a register tile of pixels x channels.

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

The loops around a tile, and the decisions about them, are those of every CPU
(tvmconv.schedules.shared: dense.py, dense_space.py). Halves are multiplied as they lie, vfwmacc.vf widens.
"""

from __future__ import annotations

from functools import partial

from tvmconv.compute import conv2d
from tvmconv.compute.geometry import geometry
from tvmconv.hardware import Machine
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import dense_broadcast, dense_space, dense_stages, tile_costs
from tvmconv.schedules.shared.dense import DenseDecisions

# Registers in a group; 8 would leave room for three pixels.
_GROUPS = (4, 2, 1)


def _blocks(spec: ConvSpec, machine: Machine) -> list[int]:
    """Widths of the packed filter: groups of registers that divide the channels, else one register."""
    group, _ = conv2d.filter_blocks(spec, 1)
    lanes = machine.cpu.lanes(spec.accumulator_dtype)
    return [m * lanes for m in _GROUPS if group % (m * lanes) == 0] or [lanes]


def _lengths(spec: ConvSpec, machine: Machine) -> list[int]:
    return tile_costs.pixel_tiles(geometry(spec).out_width, machine.cpu.vector_registers - 1)


def _unrolls(spec: ConvSpec, _machine: Machine) -> list[int]:
    return [n for n in (1, 2, 4) if spec.filter_shape[2] % n == 0]


def _fits(spec: ConvSpec, machine: Machine, tile: DenseDecisions) -> bool:
    """Accumulators and one group of weights."""
    m = tile.channels // machine.cpu.lanes(spec.accumulator_dtype)
    return (tile.pixels + 1) * m <= machine.cpu.vector_registers


def _is_rolled(_spec: ConvSpec, _machine: Machine, tile: DenseDecisions) -> bool:
    """One step of the reduction at a time: the loop around it costs three instructions of 7 x 32's 19."""
    return tile.unroll == 1


TILED = dense_space.schedule(
    "riscv.conv2d.tiled",
    dense_space.Instructions(
        blocks=_blocks,
        lengths=_lengths,
        unrolls=_unrolls,
        pads=lambda spec, _machine: dense_stages.pads(spec, widen=False),
        fits=_fits,
        roomy=_is_rolled,
        cycles=dense_space.cycles_per_fma,
        apply=partial(dense_broadcast.apply, widen=False),
    ),
)
