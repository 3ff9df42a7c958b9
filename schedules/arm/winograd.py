"""3x3 convolution of stride 1 on ARM by Winograd's tiles: the nest of tvmconv.nests.winograd.

THE REGISTER TILE is a dense convolution's, ``pixels`` tiles x ``channels`` output channels, multiplied by
lanes: four input channels of a tile come with one load.

    registers   pixels * nv accumulators + pixels of data + nv weights: 7 x 12 takes 21 + 7 + 3 = 31

THE TRANSFORMS work on a vector of channels of one tile at a time. The 36 values of a tile of 4 x 4 outputs
do not fit 32 registers, so a third of them goes through the stack.

Nothing here was timed on a board: the costs are counted instructions, at a third of a cycle each where
they are no multiply-adds.
"""

from __future__ import annotations

from tvmconv.nests.winograd_space import Costs, schedule

COSTS = Costs(
    direct_rate=0.85,
    data=2.5,
    out=2.0,
    l2_bytes=16,
    far_bytes=3,
    registers=lambda pixels, vectors: pixels * vectors + pixels + vectors,
)

WINOGRAD = schedule("arm.conv2d.winograd", COSTS)
SCHEDULES = (WINOGRAD,)
