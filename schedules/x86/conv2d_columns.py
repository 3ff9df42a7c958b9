"""Dense convolution of few channels to few on x86: vectors run over columns (dense_columns.py).

Three channels to three, where the direct tile uses 3 lanes of 16 on AVX-512 or of 8 on AVX2. Predicted:

    AVX-512   4 vectors x 3   12 sums + 3 weights + 1 of data   (4 + 3) / 12 = 0.58 loads/FMA
              all 4 loads cross a line: (8 + 3) / 12 = 0.92, below the 1 that the ports give
    AVX2      3 vectors x 3    9 sums + 3 weights + 1 of data   (3 + 3) / 9 = 0.67, 0.83 with half twice

Measured, Zen 5, one busy thread, 2026-11-28, 128x128, default decisions, in us beside the direct schedule's:

              3x3 3->3  5x5 3->3  9x9 3->3  3x3 1->1  3x3 4->4  7x7 3->1  65x65 3->3, 212x310
    AVX-512    28/56    48/150   116/471   3.3/16    37/74     58/135   49000/474000
    AVX2       36/65    80/170   230/544   5.3/6.7   59/81     70/329
"""

from __future__ import annotations

from tvmconv.schedules.shared import dense_columns
from tvmconv.schedules.x86 import conv2d_direct

COLUMNS = dense_columns.schedule("x86.conv2d.columns", conv2d_direct.INSTRUCTIONS, each=1 / 8)
SCHEDULES = (COLUMNS,)
