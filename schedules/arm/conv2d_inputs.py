"""Dense convolution to few channels on ARM: vectors run over input channels (dense_inputs.py).

64 channels to 1, kernel 3x3: a vector of output channels has one lane of four in use. Predicted for a step of
three taps, 20 x 1: 60 multiply-adds, 22 loads of data, 3 of weights and 4 instructions of the loop, 67 % of
full vectors, where the direct tile's 82 % are of a quarter; to 3 channels, 6 x 3: 54 of 75, 72 %, beside 82 %
of three quarters. Counted, Cortex-A72, with two steps unrolled: 108 of 136 instructions, 79 %, since weights
come by pair loads (2026-11).
"""

from __future__ import annotations

from tvmconv.schedules.arm import conv2d_direct
from tvmconv.schedules.shared import dense_inputs

# A third of a cycle for an instruction, as in dense_costs.py.
INPUTS = dense_inputs.schedule("arm.conv2d.inputs", conv2d_direct.INSTRUCTIONS, each=1 / 3)
SCHEDULES = (INPUTS,)
