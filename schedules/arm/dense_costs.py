"""What a register tile of a dense convolution costs on ARM, whatever its instruction multiplies."""

from __future__ import annotations

from tvmconv.compute.conv2d import filter_blocks
from tvmconv.compute.geometry import geometry, round_up
from tvmconv.hardware import Machine
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import tile_costs
from tvmconv.schedules.shared.dense import DenseDecisions


def tile_cycles(
    spec: ConvSpec,
    machine: Machine,
    tile: DenseDecisions,
    lanes: int,
    values_per_load: int,
    steps: int,
) -> float:
    """Estimate cycles per useful vector multiply-add: the largest of ports, loads and latency.

    Every instruction that is no multiply-add also takes a third of a cycle, the share of one in the width
    of a small core, which breaks ties toward larger and squarer tiles. A vector has ``lanes`` channels, a
    load brings so many values of a pixel, and the reduction has ``steps``.
    """
    (group, _), out_width = filter_blocks(spec, 1), geometry(spec).out_width
    pixels, channels, unroll = tile.pixels, tile.channels, tile.unroll
    vectors = tile_costs.pieces(channels, lanes)
    fmas = unroll * pixels * vectors
    data, weights = pixels * -(-unroll // values_per_load), unroll * vectors
    cycles = max(
        fmas / machine.cpu.fma_ports,
        (data + weights) / machine.cpu.load_ports,
        unroll * machine.cpu.fma_latency,
    )
    cycles += (data + weights / (1 if _unpaired(vectors, unroll, lanes) else 2) + 4) / 3
    if _is_short(steps) and vectors != 3:
        cycles *= 1.3
    useful = group / round_up(group, channels) * channels / lanes / vectors
    useful *= (3 + out_width / round_up(out_width, pixels)) / 4
    return float(cycles / fmas / useful)


def _unpaired(vectors: int, unroll: int, lanes: int) -> bool:
    """Whether LLVM 22 loads a step's weights one by one: 24 of them by offsets that no pair load reaches.

    Of the instructions of 1x1, 576 -> 96 channels, 80 % are multiply-adds at 7 x 12 with eight input
    channels a step, 83 % with four (counted, Cortex-A72, 2026-11).
    """
    return vectors == 3 and unroll > lanes


def _is_short(steps: int) -> bool:
    """Whether LLVM unrolls the whole reduction, keeps all data of a tile and spills.

    With 16 and 24 input channels 7 x 12 has 67 and 73 % multiply-adds and no spills, while 5 x 16, 4 x 16
    and 8 x 8 have 50 to 53 % (counted, Cortex-A72, 2026-11).
    """
    return steps <= 3
