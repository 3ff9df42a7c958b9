"""Device functions in CUDA C++ that kernels may call: put in front of every module's source."""

from __future__ import annotations

PRELUDE = ""
