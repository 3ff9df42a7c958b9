"""Small problems of every legal kind: one trait each, and the combinations that break kernels.

Each row is a label, the spec and tags to filter by. Rows differ in spec: a label is a test id.
"""

from __future__ import annotations

from typing import Final

from tvmconv.problem.edge_dtypes import DTYPES, TF32, WORDS
from tvmconv.problem.edge_epilogues import EACH_ACTIVATION, NARROW_RESIDUALS
from tvmconv.problem.edge_rows import EdgeCase
from tvmconv.problem.edge_shapes import CONV2D, DEPTHWISE, WINOGRAD

EDGE_CASES: Final[tuple[EdgeCase, ...]] = (
    *CONV2D,
    *DEPTHWISE,
    *DTYPES,
    *WORDS,
    *TF32,
    *EACH_ACTIVATION,
    *NARROW_RESIDUALS,
    *WINOGRAD,
)
