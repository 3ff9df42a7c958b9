"""A lowering pass: two kernels become one, whose blocks meet in between.

The second of two nests over blocks reads what several blocks of the first have written. As kernels of their
own the second begins when the first has ended, which costs a launch. Where those blocks are a cluster (from
compute capability 9.0 on: up to 8, at the same time on neighbouring multiprocessors), it is enough that they
wait for each other. A schedule annotates both nests with the number of blocks; neighbouring ones make a
cluster.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from tvmconv.errors import BuildError

MEETING = "tvmconv.meeting"  # annotation of loops over blocks: how many of them meet


@tirx.transform.prim_func_pass(opt_level=0)
def join_kernels(func: tirx.PrimFunc, _mod: tvm.IRModule, _ctx: Any) -> tirx.PrimFunc:
    """Join two annotated nests that follow each other; wants loops as schedules leave them."""
    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.SeqStmt, _joined)))


def _joined(sequence: tirx.SeqStmt) -> tirx.Stmt:
    nests = [s for s in sequence if isinstance(s, tirx.For) and MEETING in s.annotations]
    if not nests:
        return sequence
    if len(nests) != len(sequence) or len(nests) != 2:
        raise BuildError(f"{MEETING} belongs on two nests and nothing beside them: {sequence}")
    first, second = nests
    blocks = int(first.annotations[MEETING])
    if int(first.extent) != int(second.extent) or int(first.extent) % blocks:
        raise BuildError(
            f"{first.extent} and {second.extent} blocks cannot meet in clusters of {blocks}"
        )
    then = tvm_ffi.structural_map(
        second.body,
        (tvm.ir.Var, lambda v: first.loop_var if v.same_as(second.loop_var) else v),
    )
    meet = tirx.Evaluate(tirx.call_extern("void", f"tvmconv_meet<{blocks}>"))
    body = tirx.SeqStmt([first.body, meet, then])
    return tirx.For(first.loop_var, first.min, first.extent, first.kind, body, first.thread_binding)
