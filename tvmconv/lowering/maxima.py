"""Maxima and minima that keep NaN, in one instruction on ARM too.

``max(0, x)`` takes x where the comparison does not hold, so NaN stays NaN; x86 has that instruction. LLVM finds
none on ARM, where FMAX and FMIN give NaN for NaN but +0 for the two zeros: its ``llvm.maximum``.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

_INTRINSICS = {"Max": "llvm.maximum", "Min": "llvm.minimum"}


def _kept(node: tirx.Max | tirx.Min) -> Any:
    dtype = str(node.ty.dtype)
    if not dtype.startswith(("float32", "float64")):
        return node
    return tirx.call_llvm_pure_intrin(dtype, _INTRINSICS[type(node).__name__], node.a, node.b)


@tirx.transform.prim_func_pass(opt_level=0)
def keep_nan_on_arm(func: tirx.PrimFunc, _mod: tvm.IRModule, _ctx: Any) -> tirx.PrimFunc:
    """Call LLVM's maximum and minimum for floats, where the target is AArch64."""
    target = func.attrs.get("target") if func.attrs is not None else None
    if target is None or "aarch64" not in str(target.attrs.get("mtriple", "")):
        return func
    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.Max, _kept), (tirx.Min, _kept)))
