"""Arithmetic of register tiles that both operators share."""

from __future__ import annotations

from dataclasses import dataclass

from tvmconv.compute.geometry import round_up
from tvmconv.hardware import Machine


def vectors(elements: int, machine: Machine, dtype: str) -> int:
    """Registers that hold ``elements`` values of ``dtype``, and instructions that compute them."""
    return pieces(elements, machine.cpu.lanes(dtype))


def pieces(elements: int, lanes: int) -> int:
    """Vectors that ``elements`` are cut into: of ``lanes``, then of falling powers of two.

    31 floats are 16 + 8 + 4 + 2 + 1, each an instruction of its own (`lowering.cpu.power_of_two_runs`).
    """
    return elements // lanes + (elements % lanes).bit_count()


def padded(elements: int, lanes: int) -> int:
    """The next number of elements that are whole vectors, or one vector of a power of two.

    64 -> 7, 12, 21, 28 channels, 1x1 and 3x3 at 56x56: 1.8 to 4.1 times as fast as in pieces, though the
    output takes one more pass; 64 -> 20 is as fast, being two vectors either way (Zen 5, 2026-11).
    """
    return 1 << (elements - 1).bit_length() if elements < lanes else round_up(elements, lanes)


def pixel_tiles(extent: int, most: int) -> list[int]:
    """Tile lengths from the longest to 1 whose last tile is not so ragged that others do better."""
    lengths = range(min(extent, most), 0, -1)
    return [t for t in lengths if extent / round_up(extent, t) >= 0.75 or t == 1]


def row_bands(extent: int) -> list[int]:
    """Rows per job: the whole image, or a divisor that leaves at least four jobs."""
    return [extent, *(r for r in (14, 8, 7, 4, 2, 1) if extent % r == 0 and extent // r >= 4)]


# Parallel jobs that a kernel is made of where the layer allows it: a record serves any number of threads.
# Tuned with one thread, three of MobileNetV2's 1x1 layers ended as one job; the worst ran at 0.71 of
# XNNPACK's speed with two (Sapphire Rapids, 2026-11).
LEAST_JOBS = 4


def is_far(weights_bytes: int, machine: Machine) -> bool:
    """Whether a filter of this size is read from behind the second-level cache, which data shares."""
    return 2 * weights_bytes > machine.cpu.l2_bytes


@dataclass(frozen=True)
class Overheads:
    """Cycles that a tile's step takes beside what bounds it: for each load slot, and for the loop around it.

    A load is not free even where ports suffice, nor is the loop: they break ties toward fewer loads and
    larger tiles. 200 points of Zen 5 want 0.13 and 0.4 (`scripts/fit_costs.py`, 2026-11).
    """

    load: float
    step: float


OVERHEADS = Overheads(load=0.125, step=0.5)


def cycles_per_fma(
    machine: Machine,
    pixels: int,
    vectors_per_pixel: int,
    useful_vectors: float,
    overheads: Overheads = OVERHEADS,
) -> float:
    """Estimate cycles per useful vector FMA of a pixels x vectors tile: the largest of three.

    - the ports: 1 / fma_ports,
    - the loads: one vector per weight and one broadcast per pixel, over the load ports,
    - the latency: all accumulators turn over once per fma_latency.
    """
    fmas = pixels * vectors_per_pixel
    ports = fmas / machine.cpu.fma_ports
    loads = (pixels + vectors_per_pixel) / machine.cpu.load_ports
    cycles = max(ports, loads, machine.cpu.fma_latency) + overheads.load * loads + overheads.step
    return cycles / (pixels * useful_vectors)


def interior(
    out_extent: int, tile: int, in_extent: int, pad: int, stride: int, window: int
) -> list[int]:
    """Return [first, end): the numbers of the tiles that are whole and whose windows leave out padding.

    Output i reads inputs i * stride - pad up to that + window - 1.
    """
    first_output = -(-pad // stride)
    end_output = min(out_extent, (in_extent + pad - window) // stride + 1)
    first, end = -(-first_output // tile), end_output // tile
    return [first, max(first, end)]
