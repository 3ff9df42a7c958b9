"""From scheduled loops to CUDA: TVM's passes, with our own for warp tiles, pipelines and barriers."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.tirx.compilation_pipeline import register_tir_pipeline

from tvmconv.lowering.cuda.clusters import join_kernels
from tvmconv.lowering.cuda.pipelines import pipeline_copies
from tvmconv.lowering.cuda.warp_tiles import call_warp_tiles

PIPELINE = "tvmconv_gpu"


def passes() -> list[Any]:
    """TVM's own s_tir pipeline less virtual threads and what `gpu.pipelines` does in its place.

    Less StorageRewrite too, which makes floats of an array of bytes that is read as floats, as many of them:
    four times the shared memory.
    """
    return [
        join_kernels,
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.LiftThreadBinding(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.UnifyThreadBinding(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.LowerOpaqueBlock(),
        pipeline_copies,
        call_warp_tiles,
        tirx.transform.ConvertSSA(),
        tirx.transform.StmtSimplify(),
        tirx.transform.FlattenBuffer(),
        tirx.transform.BF16ComputeLegalize(),
        tirx.transform.NarrowDataType(32),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.UnrollLoop(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
        s_tir.transform.RewriteUnsafeSelect(),
        tirx.transform.CommonSubexprElim(),
        tirx.transform.VerifyMemory(),
        tirx.transform.AnnotateEntryFunc(),
        tirx.transform.SplitHostDevice(),
        tirx.transform.MakePackedAPI(),
        tirx.transform.BF16StorageLegalize(),
    ]


def _pipeline() -> tuple[Any, Any, Any]:
    @tvm.transform.module_pass(opt_level=0)
    def lower(mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return tvm.transform.Sequential(passes())(mod)

    def finalize_host() -> Any:
        return tvm.transform.Sequential(
            [tirx.transform.LowerTVMBuiltin(), tirx.transform.LowerIntrin()]
        )

    def finalize_device() -> Any:
        return tvm.transform.Sequential(
            [tirx.transform.StmtSimplify(), tirx.transform.LowerIntrin()]
        )

    return lower, finalize_host, finalize_device


register_tir_pipeline(PIPELINE, _pipeline)
