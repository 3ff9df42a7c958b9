"""Vectors of a length that LLVM keeps in registers: a power of two."""

from __future__ import annotations


def power_of_two_runs(extent: int) -> list[tuple[int, int]]:
    """Cover [0, extent) with runs [begin, end) whose lengths are falling powers of two: 24 is 16 + 8."""
    runs, begin = [], 0
    while begin < extent:
        length = 1 << ((extent - begin).bit_length() - 1)
        runs.append((begin, begin + length))
        begin += length
    return runs
