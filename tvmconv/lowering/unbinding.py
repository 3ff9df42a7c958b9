"""A lowering pass: a GPU's schedule on a CPU, one thread after the other.

What the contract's rehearsal runs, so that values show whether a GPU kernel's loops, indices, predicates and
packing are right. Loops over blocks and threads become plain loops, and shared memory and registers plain
arrays; annotations that `gpu.tiles` and `gpu.pipelines` follow are left alone. Barriers, asynchronous copies
and what tensor cores do are not seen here.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx


@tirx.transform.prim_func_pass(opt_level=0)
def unbind_threads(func: tirx.PrimFunc, _mod: tvm.IRModule, _ctx: Any) -> tirx.PrimFunc:
    """Rewrite a scheduled function that binds threads; any other stays as it is."""
    bound: list[Any] = []
    scoped: dict[Any, Any] = {}

    def note(node: Any) -> None:
        if isinstance(node, tirx.For) and node.kind == tirx.ForKind.THREAD_BINDING:
            bound.append(node)
        if isinstance(node, s_tir.SBlock):
            for buffer in node.alloc_buffers:
                scoped[buffer] = _unscoped(buffer)

    tvm_ffi.structural_walk(func.body, note)
    if not bound:
        return func
    body = tvm_ffi.structural_map(func.body, (tirx.For, _serial))
    return func.with_body(tvm_ffi.structural_map(body, (tvm.ir.Var, lambda v: scoped.get(v, v))))


def _serial(loop: tirx.For) -> tirx.For:
    if loop.kind != tirx.ForKind.THREAD_BINDING:
        return loop
    return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)


def _unscoped(buffer: Any) -> Any:
    return tirx.decl_buffer(buffer.shape, buffer.dtype, buffer.name)
