"""Sums that start at the bias instead of at zero: an addition less for every output.

te.create_prim_func (TVM 0.27) drops the ``init`` of a te.sum without a word, so the function that it makes
is rewritten: the bias moves from the epilogue, stage ``out``, into the start of stage ``conv``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx

_BIAS, _SUM, _OUT = "bias", "conv", "out"


def at_bias(func: tirx.PrimFunc, channel: Callable[..., Any]) -> tirx.PrimFunc:
    """Return the unscheduled function whose sums start at the bias; as it is where it has none.

    ``channel`` gives the output channel of an element of ``conv`` from its indices.
    """
    added: list[Any] = []

    def without(node: Any) -> Any:
        """The epilogue's addition, replaced by what the bias is added to."""
        if not _adds_bias(node):
            return node
        added.append(node.b)
        return node.a

    def finished(block: Any) -> Any:
        if block.name_hint != _OUT:
            return block
        reads = [region for region in block.reads if region.source.name != _BIAS]
        return _rebuilt(block, reads, tvm_ffi.structural_map(block.body, (tirx.Add, without)), None)

    def started(block: Any) -> Any:
        if block.name_hint != _SUM or not added:
            return block
        store, value = block.init, added[0]  # silu's sum stands there twice
        at = channel(*store.indices)
        (load,) = _loads(value)
        # Its only index, whatever the epilogue calls it.
        here = tvm_ffi.structural_map(
            value, (tvm.ir.TensorLoad, lambda node: node.source[at] if _is_bias(node) else node)
        )
        one = tirx.BufferRegion(load.source, [tvm.ir.Range.from_min_extent(at, 1)])
        init = tirx.BufferStore(store.buffer, here, store.indices)
        return _rebuilt(block, [*block.reads, one], block.body, init)

    body = tvm_ffi.structural_map(func.body, (s_tir.SBlock, finished))
    return func.with_body(tvm_ffi.structural_map(body, (s_tir.SBlock, started)))


def _is_bias(node: Any) -> bool:
    return isinstance(node, tvm.ir.TensorLoad) and node.source.name == _BIAS


def _adds_bias(node: Any) -> bool:
    """Whether this is ``something + bias``, the bias converted or as it is."""
    value = node.b.value if isinstance(node.b, tirx.Cast) else node.b
    return _is_bias(value)


def _loads(value: Any) -> list[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(value, lambda node: found.append(node) if _is_bias(node) else None)
    return found


def _rebuilt(block: Any, reads: list[Any], body: Any, init: Any) -> Any:
    return s_tir.SBlock(
        block.iter_vars,
        reads,
        block.writes,
        block.name_hint,
        body,
        init,
        block.alloc_buffers,
        block.match_buffers,
        block.annotations,
    )
