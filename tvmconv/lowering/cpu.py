"""From scheduled loops to machine code: one pass of our own among TVM's.

TVM's ``LoopPartition`` dies on tiles that do not divide the image ("Cannot unroll non-constant loop"),
so schedules say themselves where a loop over tiles changes its nature, and `specialise_tiles` splits it
there. The pieces at a border run few times: they are unrolled, and the simplifier then drops the
padding tests and the predicates of the ragged last tile, because it knows the tile's number.
"""

from __future__ import annotations

import itertools
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.tirx.compilation_pipeline import register_tir_pipeline

from tvmconv.lowering import cutting
from tvmconv.lowering.amx_calls import call_tiles
from tvmconv.lowering.dot_calls import call_dot_products
from tvmconv.lowering.elementary import expand_elementary
from tvmconv.lowering.interface import LLVM_IR, SPLIT_AT
from tvmconv.lowering.prefetching import prefetch_panels
from tvmconv.lowering.unbinding import unbind_threads

PIPELINE = "tvmconv"
# Longer border pieces stay loops: unrolled ones would only grow the code.
_UNROLLED_PIECE = 2


def split_points(loop: tirx.For) -> list[tuple[int, int]]:
    """Return the non-empty pieces [begin, end) of an annotated loop of constant extent."""
    extent = int(loop.extent)
    inner = sorted({int(p) for p in loop.annotations[SPLIT_AT] if 0 < int(p) < extent})
    edges = [0, *inner, extent]
    return list(itertools.pairwise(edges))


def _piece(loop: tirx.For, begin: int, end: int, kind: int) -> tirx.For:
    unrolled = end - begin <= _UNROLLED_PIECE
    return tirx.For(
        loop.loop_var, begin, end - begin, tirx.ForKind.UNROLLED if unrolled else kind, loop.body
    )


def _in_sequence(loop: tirx.For) -> tirx.Stmt:
    """One loop after the other, so that a loop's invariants can be hoisted out of its piece."""
    pieces = [_piece(loop, begin, end, loop.kind) for begin, end in split_points(loop)]
    return tirx.SeqStmt(pieces) if len(pieces) > 1 else pieces[0]


def _in_branches(loop: tirx.For) -> tirx.Stmt:
    """One parallel loop whose body branches on the piece: several loops would mean several barriers."""
    t = loop.loop_var
    pieces = sorted(split_points(loop), key=lambda piece: piece[1] - piece[0])
    body: tirx.Stmt | None = None
    for begin, end in reversed(pieces):
        single = end - begin == 1
        case = _piece(loop, begin, end, tirx.ForKind.SERIAL) if single else loop.body
        inside = tirx.all(t >= begin, t < end)
        body = tirx.IfThenElse(inside, case, body)
    return tirx.For(t, 0, loop.extent, loop.kind, body)


def _specialise(loop: tirx.For) -> tirx.Stmt:
    if loop.kind == tirx.ForKind.VECTORIZED:
        return cutting.vectors(loop, cutting.pieces(loop))
    if SPLIT_AT not in loop.annotations:
        return loop
    return _in_branches(loop) if loop.kind == tirx.ForKind.PARALLEL else _in_sequence(loop)


@tirx.transform.prim_func_pass(opt_level=0)
def specialise_tiles(func: tirx.PrimFunc, _mod: tvm.IRModule, _ctx: Any) -> tirx.PrimFunc:
    """Split every loop annotated with `SPLIT_AT`; the copies share variables until ConvertSSA."""
    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.For, _specialise)))


def _on_stack(alloc: tirx.AllocBuffer) -> tirx.AllocBuffer:
    if alloc.buffer.scope() != "local":
        return alloc
    return tirx.AllocBuffer(
        alloc.buffer, annotations={"disable_lower_builtin": tirx.IntImm("bool", 1)}
    )


@tirx.transform.prim_func_pass(opt_level=0)
def accumulators_on_stack(func: tirx.PrimFunc, _mod: tvm.IRModule, _ctx: Any) -> tirx.PrimFunc:
    """Keep "local" buffers out of the heap: LowerTVMBuiltin puts 1 KiB and more there (16 zmm)."""
    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.AllocBuffer, _on_stack)))


@tirx.transform.prim_func_pass(opt_level=0)
def import_llvm_ir(func: tirx.PrimFunc, _mod: tvm.IRModule, _ctx: Any) -> tirx.PrimFunc:
    """Have LLVM link, and inline, the definitions that a function brings along."""
    if func.attrs is None or LLVM_IR not in func.attrs:
        return func
    zero = tirx.IntImm("int32", 0)
    return func.with_body(
        tirx.AttrStmt(zero, "pragma_import_llvm", func.attrs[LLVM_IR], func.body)
    ).without_attr(LLVM_IR)


def _cpu_passes() -> list[Any]:
    """TVM's own s_tir pipeline less its GPU passes and LoopPartition, plus `specialise_tiles`.

    Also less RenormalizeSplitPattern, RemoveNoOp and CommonSubexprElim: LLVM does their work, they are up
    to 40 % of compiling an unrolled kernel, and without them ResNet-50's stem is 1.2 times as fast and
    the 54 layers of two networks on average the same (interleaved, Sapphire Rapids, 2026-11-22).
    """
    return [
        unbind_threads,
        import_llvm_ir,
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.FlattenBuffer(),
        prefetch_panels,
        call_dot_products,
        call_tiles,
        specialise_tiles,
        tirx.transform.ConvertSSA(),
        tirx.transform.StmtSimplify(),
        cutting.end_vectors,
        tirx.transform.BF16ComputeLegalize(),
        tirx.transform.NarrowDataType(32),
        expand_elementary,
        tirx.transform.VectorizeLoop(True),
        tirx.transform.StorageRewrite(),
        tirx.transform.UnrollLoop(),
        tirx.transform.StmtSimplify(),
        s_tir.transform.RewriteUnsafeSelect(),
        tirx.transform.VerifyMemory(),
        tirx.transform.AnnotateEntryFunc(),
        tirx.transform.SplitHostDevice(),
        tirx.transform.MakePackedAPI(),
        tirx.transform.BF16StorageLegalize(),
        accumulators_on_stack,
    ]


def _pipeline() -> tuple[Any, Any, Any]:
    @tvm.transform.module_pass(opt_level=0)
    def lower(mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return tvm.transform.Sequential(_cpu_passes())(mod)

    def finalize_host() -> Any:
        return tvm.transform.Sequential(
            [tirx.transform.LowerTVMBuiltin(), tirx.transform.LowerIntrin()]
        )

    return lower, finalize_host, lambda: tvm.transform.Sequential([])


register_tir_pipeline(PIPELINE, _pipeline)
