"""Dense convolution of few channels to few on ARM: vectors run over columns (dense_columns.py).

One channel to one, where the direct tile uses a lane of four. Predicted for a tap, 16 vectors x 1: 16
multiply-adds, 16 loads of data, one of the weight and 3 instructions of the loop, 44 % of full vectors beside
82 % of a quarter. To 3 channels, 6 x 3: 18 of 18 + 6 + 3 + 3, 60 %, beside 82 % of three quarters, 62 %,
so only a large kernel, of which a stem's tile unrolls too much, or one channel gain.
"""

from __future__ import annotations

from tvmconv.schedules.arm import conv2d_direct
from tvmconv.schedules.shared import dense_columns

COLUMNS = dense_columns.schedule("arm.conv2d.columns", conv2d_direct.INSTRUCTIONS, each=1 / 3)
SCHEDULES = (COLUMNS,)
