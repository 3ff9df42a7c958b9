"""Lowering passes for GPUs: barriers around shared memory, and loops that copy ahead of what they compute.

TVM 0.27's own (ThreadSync, InjectSoftwarePipeline, InjectPTXAsyncCopy) see no accesses in calls, and its
asynchronous copies cannot be predicated with zeros for padding; so barriers are set here, and only here.
"""

from __future__ import annotations

import math
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from tvmconv.errors import BuildError

# Loop annotation: how many turns' tiles are in shared memory, this one's and those on their way.
PIPELINE = "tvmconv.pipeline"
# Annotation of a vector loop: what is asked of one lane is true of all. TVM's analyser cannot prove it of a
# window's taps: (128 k + 16 x + lane) // 48.
UNIFORM = "tvmconv.uniform"
_ASYNC_BYTES = (4, 8, 16)  # what cp.async copies
_SHARED = "shared.dyn"
_ALIGNMENT = 128  # bytes; ldmatrix wants 16


@tirx.transform.prim_func_pass(opt_level=0)
def pipeline_copies(func: tirx.PrimFunc, _mod: tvm.IRModule, _ctx: Any) -> tirx.PrimFunc:
    """Set barriers and rewrite every annotated loop; wants buffers that are not flat yet."""
    body = tvm_ffi.structural_map(func.body, (tirx.SeqStmt, _with_barriers))
    staged: list[Any] = []
    body = tvm_ffi.structural_map(body, (tirx.For, lambda loop: _pipelined(loop, staged)))
    return func.with_body(_placed(body, staged))


def _placed(body: Any, staged: list[Any]) -> Any:
    """All shared memory as one array: a pipeline's buffers, and over them what comes after it.

    TVM's MergeSharedMemoryAllocations fails on buffers whose addresses calls take.
    """
    buffers: list[Any] = []

    def note(node: Any) -> None:
        if _allocates_shared(node):
            buffers.append(node.buffer)

    tvm_ffi.structural_walk(body, note)
    if not buffers:
        return body
    ends, views = {True: 0, False: 0}, {}
    for buffer in buffers:
        in_pipeline = buffer in staged
        begin = ends[in_pipeline]
        ends[in_pipeline] = begin + -(-_bytes(buffer) // _ALIGNMENT) * _ALIGNMENT
        views[buffer] = tirx.decl_buffer(
            buffer.shape,
            buffer.dtype,
            buffer.name,
            strides=list(buffer.strides) or None,
            elem_offset=begin // tvm.DataType(buffer.dtype).itemsize,
            scope=buffer.scope(),
        )
    memory = tirx.decl_buffer(
        (max(ends.values()),), "uint8", "shared", data_alignment=_ALIGNMENT, scope=_SHARED
    )
    pointer = tirx.buffer.buffer_data(memory)

    def allocated(node: Any) -> Any:
        if not _allocates_shared(node):
            return node
        view = tirx.DeclBuffer(views[node.buffer], data=pointer)
        first = node.buffer.same_as(buffers[0])
        return tirx.SeqStmt([tirx.AllocBuffer(memory), view]) if first else view

    body = tvm_ffi.structural_map(body, (tirx.AllocBuffer, allocated))
    return tvm_ffi.structural_map(body, (tvm.ir.Var, lambda v: views.get(v, v)))


def _bytes(buffer: Any) -> int:
    whole = int(buffer.shape[0]) * int(buffer.strides[0]) if len(buffer.strides) else 0
    return (whole or math.prod(map(int, buffer.shape))) * int(tvm.DataType(buffer.dtype).itemsize)


def _barrier() -> tirx.Stmt:
    return tirx.Evaluate(tirx.call_intrin("void", "tirx.tvm_storage_sync", "shared"))


def _call(name: str) -> tirx.Stmt:
    return tirx.Evaluate(tirx.call_extern("void", name))


def _with_barriers(sequence: tirx.SeqStmt) -> tirx.Stmt:
    """A barrier before a statement that reads shared memory which one before it wrote."""
    written: set[Any] = set()
    result = []
    for statement in sequence:
        reads, writes = _shared_accesses(statement)
        ahead = isinstance(statement, tirx.For) and PIPELINE in statement.annotations
        if reads & written and not ahead:
            result.append(_barrier())
            written = set()
        result.append(statement)
        written |= set() if ahead else writes
    return tirx.SeqStmt(result) if len(result) > len(sequence) else sequence


def _shared_accesses(statement: Any) -> tuple[set[Any], set[Any]]:
    reads: set[Any] = set()
    writes: set[Any] = set()

    def visit(node: Any) -> None:
        if isinstance(node, tvm.ir.TensorLoad) and node.source.scope() == _SHARED:
            reads.add(node.source)
        if isinstance(node, tirx.BufferStore) and node.buffer.scope() == _SHARED:
            writes.add(node.buffer)

    tvm_ffi.structural_walk(statement, visit)
    return reads, writes


def _pipelined(loop: tirx.For, staged: list[Any]) -> tirx.Stmt:
    if PIPELINE not in loop.annotations:
        return loop
    stages, turns = int(loop.annotations[PIPELINE]), int(loop.extent)
    # Barriers that `_with_barriers` set between copies and what reads them are not needed: there is one.
    statements = [s for s in _flat(loop.body) if not _is_barrier(s)]
    allocations = [s for s in statements if _allocates_shared(s)]
    copies = [s for s in statements if _copies(s)]
    rest = [s for s in statements if not _allocates_shared(s) and not _copies(s)]
    if not copies:
        raise BuildError(f"nothing is copied to shared memory in the loop over {loop.loop_var}")
    versions = {a.buffer: _versions(a.buffer, stages) for a in allocations}
    staged.extend(versions.values())
    turn = loop.loop_var

    def at(statements: list[Any], when: Any) -> tirx.Stmt:
        slot = when % stages if stages > 1 else tirx.const(0, "int32")
        # In this order: the slot names the turn too.
        then = [_substituted(s, turn, when) for s in statements]
        moved = [_moved(s, versions, slot) for s in then]
        return tirx.SeqStmt(moved) if len(moved) > 1 else moved[0]

    head: list[Any] = [tirx.AllocBuffer(buffer) for buffer in versions.values()]
    if stages == 1:
        fetched = _asynchronous(at(copies, turn))
        arrived = [_call("tvmconv_commit"), _call("tvmconv_wait<0>"), _barrier()]
        body = [_barrier(), fetched, *arrived, at(rest, turn)]
        loop = tirx.For(turn, 0, turns, loop.kind, tirx.SeqStmt(body))
        return tirx.SeqStmt([*head, loop, _barrier()])
    for early in range(stages - 1):
        if early < turns:
            head.append(_asynchronous(at(copies, tirx.const(early, "int32"))))
        head.append(_call("tvmconv_commit"))
    ahead = turn + (stages - 1)
    fetch = tirx.IfThenElse(ahead < turns, _asynchronous(at(copies, ahead)), None)
    body = [
        _call(f"tvmconv_wait<{stages - 2}>"),
        # Also the end of the last turn: the slot that is filled next is the one it read.
        _barrier(),
        *([fetch] if turns >= stages else []),
        _call("tvmconv_commit"),
        at(rest, turn),
    ]
    loop = tirx.For(turn, 0, turns, loop.kind, tirx.SeqStmt(body))
    return tirx.SeqStmt([*head, loop, _call("tvmconv_wait<0>"), _barrier()])


def _flat(statement: Any) -> list[Any]:
    if isinstance(statement, tirx.SeqStmt):
        return [inner for each in statement for inner in _flat(each)]
    return [statement]


def _is_barrier(statement: Any) -> bool:
    return (
        isinstance(statement, tirx.Evaluate)
        and isinstance(statement.value, tvm.ir.Call)
        and "tvm_storage_sync" in str(statement.value.op)
    )


def _allocates_shared(statement: Any) -> bool:
    return bool(isinstance(statement, tirx.AllocBuffer) and statement.buffer.scope() == _SHARED)


def _copies(statement: Any) -> bool:
    return bool(_shared_accesses(statement)[1])


def _versions(buffer: Any, stages: int) -> Any:
    """The buffer once for every stage."""
    shape = [int(extent) for extent in buffer.shape]
    strides = [int(stride) for stride in buffer.strides]
    whole = strides[0] * shape[0] if strides else None
    return tirx.decl_buffer(
        (stages, *shape),
        buffer.dtype,
        buffer.name,
        strides=None if whole is None else (whole, *strides),
        scope=buffer.scope(),
    )


def _moved(statement: Any, versions: dict[Any, Any], slot: Any) -> Any:
    """The statement on one stage's version of every buffer."""

    def load(node: Any) -> Any:
        if node.source not in versions:
            return node
        return versions[node.source][(slot, *node.indices)]

    def store(node: Any) -> Any:
        if node.buffer not in versions:
            return node
        return tirx.BufferStore(versions[node.buffer], node.value, [slot, *node.indices])

    return tvm_ffi.structural_map(
        tvm_ffi.structural_map(statement, (tvm.ir.TensorLoad, load)), (tirx.BufferStore, store)
    )


def _substituted(statement: Any, variable: Any, value: Any) -> Any:
    return tvm_ffi.structural_map(
        statement, (tvm.ir.Var, lambda v: value if v.same_as(variable) else v)
    )


def _asynchronous(statement: Any) -> Any:
    """Copies of 4, 8 or 16 bytes without waiting; others as they are, through registers."""

    def of_vector(loop: Any) -> Any:
        if UNIFORM not in loop.annotations or not isinstance(loop.body, tirx.BufferStore):
            return loop
        return _copy(loop.body, loop.loop_var, int(loop.extent)) or loop

    mapped = tvm_ffi.structural_map(statement, (tirx.For, of_vector))

    def of_one(store: Any) -> Any:
        return _copy(store, None, 1) or store

    def outside(loop: Any) -> bool:
        return bool(loop.kind != tirx.ForKind.VECTORIZED)

    return _mapped_stores(mapped, of_one, outside)


def _mapped_stores(statement: Any, change: Any, enter: Any) -> Any:
    """Change stores that lie in no loop which ``enter`` refuses."""
    if isinstance(statement, tirx.SeqStmt):
        return tirx.SeqStmt([_mapped_stores(each, change, enter) for each in statement])
    if isinstance(statement, tirx.For) and enter(statement):
        return tirx.For(
            statement.loop_var,
            statement.min,
            statement.extent,
            statement.kind,
            _mapped_stores(statement.body, change, enter),
        )
    if isinstance(statement, tirx.IfThenElse):
        inner = _mapped_stores(statement.then_case, change, enter)
        return tirx.IfThenElse(statement.condition, inner, None)
    return change(statement) if isinstance(statement, tirx.BufferStore) else statement


def _copy(store: Any, lane: Any, count: int) -> Any | None:
    """The call that copies ``count`` elements; None where memory or condition do not allow it."""
    size = count * tvm.DataType(store.buffer.dtype).itemsize
    value, inside = store.value, tirx.const(True, "bool")
    if isinstance(value, tvm.ir.Call) and "if_then_else" in str(value.op):
        inside, value, zero = value.args
        if float(zero.value) != 0:
            return None
    if size not in _ASYNC_BYTES or not isinstance(value, tvm.ir.TensorLoad):
        return None
    if value.source.scope() != "global" or value.source.dtype != store.buffer.dtype:
        return None

    def at_first(value: Any) -> Any:
        return value if lane is None else _substituted(value, lane, tirx.const(0, "int32"))

    def first(indices: Any) -> tuple[Any, ...]:
        return tuple(at_first(index) for index in indices)

    call = tirx.call_extern(
        "void",
        f"tvmconv_copy<{size}>",
        tirx.address_of(store.buffer[first(store.indices)]),
        tirx.address_of(value.source[first(value.indices)]),
        at_first(inside),
    )
    return tirx.Evaluate(call)
