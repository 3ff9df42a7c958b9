"""Times compiled functions in C, without Python in the loop; works with the runtime alone."""

from __future__ import annotations

import struct
from typing import Any

import tvm_ffi

_EVALUATOR = "runtime.RPCTimeEvaluator"
_CPU = 1  # DLPack's kDLCPU


def seconds(
    module: Any, symbol: str, pointers: tuple[Any, ...], repeats: int = 3, least_ms: float = 3.0
) -> list[float]:
    """Return the mean time of one call, in seconds, of each of ``repeats`` runs.

    Each run makes as many calls as fill ``least_ms`` milliseconds; the first call of all, which warms
    caches and pages, is not counted. ``pointers`` are the function's arguments.
    """
    evaluator = tvm_ffi.get_global_func(_EVALUATOR)(
        module, symbol, _CPU, 0, 1, repeats, int(max(least_ms, 1)), 100, 0, 1, 0, ""
    )
    return list(struct.unpack(f"@{repeats}d", bytes(evaluator(*pointers))))
