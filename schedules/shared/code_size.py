"""How long the straight code of a tile may be, counted in vector instructions that multiply.

Every tile is compiled up to nine times, for the borders, and LLVM needs more than proportionally longer for
longer straight code: 22 pixels x 3 channels of 3x3, in pieces of 2 + 1, took 153 CPU seconds (2026-11).
"""

from __future__ import annotations

# Multiply-adds of a tile of dense convolution: 4 KiB of code for 1024 on ARM, about 8 on x86, where a stem
# of 3500 took 7 s to compile and ran at two thirds of the speed (2026-11).
MOST_DENSE = 1024
# Of depthwise convolution: beyond this the nine copies outgrow the instruction cache (400 FMAs of 6 to 10
# bytes with their loads are about 4 KiB a copy, the cache has 32).
MOST_DEPTHWISE = 400
# The same where vectors are ragged: 196 of 7x7, 3 channels, took up to 5.9 CPU seconds, 392 more than ten
# (Zen 5, 2026-11).
MOST_RAGGED = 192


def unrolled(outputs: int, steps: int, vectors: int) -> int:
    """Multiply-adds of ``outputs``, of so many vectors each, over the ``steps`` that are unrolled."""
    return outputs * steps * vectors
