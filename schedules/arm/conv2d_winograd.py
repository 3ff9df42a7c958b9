"""3x3 convolution of stride 1 on ARM by Winograd's tiles: the nest of tvmconv.schedules.shared.winograd.

THE REGISTER TILE is a dense convolution's, ``pixels`` tiles x ``channels`` output channels, multiplied by
lanes: four input channels of a tile come with one load.

    registers   pixels * nv accumulators + pixels of data + nv weights: 7 x 12 takes 21 + 7 + 3 = 31

THE TRANSFORMS work on a vector of channels of one tile at a time. They are most of what is no multiply-add:
of 28x28x32 -> 32's instructions 49 % are multiply-adds, 2 % go through the stack (counted, Cortex-A72).

The costs below are guesses: neither counted nor timed on a board. Tiles were only seen to beat direct
convolution by instructions, on ResNet-50's layers and that one (0.34 to 0.46 as many).
"""

from __future__ import annotations

from tvmconv.schedules.shared.winograd_space import Costs, schedule

COSTS = Costs(
    direct_rate=0.85,
    data=2.5,
    out=2.0,
    l2_bytes=lambda _machine: 16,
    l3_bytes=16,
    memory_bytes=3,
    l3=lambda _machine: 0,
    registers=lambda pixels, vectors: pixels * vectors + pixels + vectors,
)

WINOGRAD = schedule("arm.conv2d.winograd", COSTS)
SCHEDULES = (WINOGRAD,)
