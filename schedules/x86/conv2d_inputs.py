"""Dense convolution to few channels on x86: vectors run over input channels (dense_inputs.py).

64 channels to 3, kernel 3x3, where a vector of output channels would have 13 of 16 lanes idle on AVX-512, and
5 of 8 on AVX2. Predicted, by the loads and the registers of a step of three taps:

    AVX-512   6 x 3   18 sums + 9 weights + 8 data, shared   (8 + 9) / 54 = 0.31 loads/FMA   bound by FMAs
    AVX2      3 x 3    9 sums + 3 weights + 3 data           (5 + 9) / 27 = 0.52
    to one channel:
    AVX-512  20 x 1   20 sums + 3 weights + 3 data          (22 + 3) / 60 = 0.42
    AVX2     10 x 1   10 sums + 3 weights + 3 data          (12 + 3) / 30 = 0.50

so FMAs bound both, 18 cycles an output on AVX-512, and its sum of 16 lanes adds 4 shuffles and 4 additions:
4 cycles if nothing hides them, 22 together.

Measured, Zen 5, one busy thread, 2026-11-28, 64x64, default decisions, in us beside the direct schedule's:

    3x3, 64 ->    1       2       3       4       5       8      12      21
    AVX-512    28/251  43/287  63/291  78/289  98/292 157/290 236/323 437/560
    AVX2       43/226  74/357 112/347 143/342 221/393 293/397 425/549 808/834

63 us are about 21 cycles an output. Loads counted in the inner loops (tests/golden): 0.31 and 0.52 a
multiply-add; on AVX-512, where the taps of 64 channels are unrolled, half of them are weights that LLVM keeps
on the stack, which costs nothing.
"""

from __future__ import annotations

from tvmconv.schedules.shared import dense_inputs
from tvmconv.schedules.x86 import conv2d_direct

# An eighth of a cycle for a load, as in tile_costs.cycles_per_fma.
INPUTS = dense_inputs.schedule("x86.conv2d.inputs", conv2d_direct.INSTRUCTIONS, each=1 / 8)
SCHEDULES = (INPUTS,)
