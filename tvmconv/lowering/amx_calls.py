"""A lowering pass: the whole reduction of a tile of pixels x channels becomes one call of a function.

Matrix tiles (AMX) are registers that TVM knows nothing of: nothing between zeroing and storing them may be
left to it. What the function must know, the distances in memory, is read off the loops that it replaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from tvmconv.errors import BuildError

# Annotation of the loop over jobs that tiles are in: the function, whose name and "_end" is called at the end
# of a job. A variable of the job tells the function what the job's earlier calls have configured.
JOB = "tvmconv.job"
# Annotations of the outermost loop of a tile: the function to call, and [words of the filter that a step of
# it takes, values of a word, channels of a block].
TILE, CUT = "tvmconv.tile", "tvmconv.cut"
_SUM_BYTES = _WORD_BYTES = 4


@tirx.transform.prim_func_pass(opt_level=0)
def call_tiles(func: tirx.PrimFunc, _mod: tvm.IRModule, _ctx: Any) -> tirx.PrimFunc:
    """Replace every annotated nest; wants flat buffers."""
    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.For, _in_job)))


def _in_job(job: tirx.For) -> tirx.Stmt:
    if JOB not in job.annotations:
        return job
    loaded = tirx.decl_buffer((1,), "int32", "loaded", scope="local")
    zero = tirx.const(0, "int32")
    body = tvm_ffi.structural_map(
        job.body,
        (tirx.For, lambda loop: _call(loop, loaded) if TILE in loop.annotations else loop),
    )
    end = tirx.call_extern("int32", f"{job.annotations[JOB]}_end")
    body = [
        tirx.AllocBuffer(loaded),
        tirx.BufferStore(loaded, zero, [zero]),
        body,
        tirx.Evaluate(end),
    ]
    kept = {key: value for key, value in job.annotations.items() if key != JOB}
    return tirx.For(
        job.loop_var, job.min, job.extent, job.kind, tirx.SeqStmt(body), annotations=kept
    )


@dataclass(frozen=True)
class _Loop:
    """A loop of a tile, and how many elements of sums, data and filter lie from one turn to the next."""

    variable: Any
    extent: int
    sums: int
    data: int
    filter: int


@dataclass(frozen=True)
class _Nest:
    """An annotated nest: its loops, the store of a sum, the loads of its operands, conditions of all."""

    loops: list[_Loop]
    store: Any
    data: Any
    filter: Any
    conditions: list[Any]


def _call(outermost: tirx.For, loaded: Any) -> tirx.Stmt:
    """The call that replaces a tile's loops."""
    nest = _taken_apart(outermost)
    step, values, block = (int(number) for number in outermost.annotations[CUT])
    pixels = [loop for loop in nest.loops if loop.sums and not loop.filter]
    kernel = [loop for loop in nest.loops if loop.filter and not loop.sums]
    *taps, inner = [_NONE] * (3 - len(kernel)) + kernel
    if len(pixels) > 1 or len(kernel) > 3 or inner.extent % step:
        raise BuildError(f"this is no tile of pixels x channels: {outermost}")
    pixel = pixels[0] if pixels else _NONE
    element = tvm.DataType(nest.data.source.dtype).itemsize
    distances = (
        (pixel.sums or block) * _SUM_BYTES,
        pixel.data * element,
        *(number for tap in taps for number in (tap.extent, tap.data * element)),
        inner.extent // step,
        inner.data * step * element if step == 1 else step * values * element,
        block * _WORD_BYTES,
        block * _WORD_BYTES * step,
    )
    call = tirx.call_extern(
        "int32",
        str(outermost.annotations[TILE]),
        tirx.address_of(loaded[0]),
        *(_first(access, nest.loops) for access in (nest.store, nest.data, nest.filter)),
        _count(nest, pixel),
        *(tirx.const(number, "int64") for number in distances),
    )
    return tirx.Evaluate(call)


# A loop of one turn, which TVM leaves out.
_NONE = _Loop(None, 1, 0, 0, 0)


def _taken_apart(outermost: Any) -> _Nest:
    loops, conditions, body = [], [], outermost
    while not isinstance(body, tirx.SeqStmt):
        if isinstance(body, tirx.For):
            loops.append(body)
            body = body.body
        else:
            conditions.append(body.condition)
            body = body.then_case
    _, store = body  # the first sets the sum to zero
    found: list[Any] = []
    tvm_ffi.structural_walk(
        store.value.b,
        lambda node: found.append(node) if isinstance(node, tvm.ir.TensorLoad) else None,
    )
    data, filter_ = found
    return _Nest(
        [
            _Loop(
                loop.loop_var,
                int(loop.extent),
                *(_stride(access, loop.loop_var) for access in (store, data, filter_)),
            )
            for loop in loops
        ],
        store,
        data,
        filter_,
        conditions,
    )


def _count(nest: _Nest, pixel: _Loop) -> Any:
    """Pixels of the tile: fewer in the last of a row, whose others a condition shuts out."""
    count: Any = tirx.const(pixel.extent, "int32")
    for condition in nest.conditions:
        if not isinstance(condition, tirx.LT) or not _mentions(condition.a, pixel.variable):
            raise BuildError(f"this is no condition on the pixels of a tile: {condition}")
        count = tirx.min(count, condition.b - _at_zero(condition.a, [pixel]))
    return count


def _mentions(value: Any, variable: Any) -> bool:
    found: list[Any] = []
    tvm_ffi.structural_walk(
        value, lambda node: found.append(node) if node.same_as(variable) else None
    )
    return variable is not None and bool(found)


def _first(access: Any, loops: list[_Loop]) -> Any:
    """Address of the element where all loops begin."""
    buffer = access.buffer if isinstance(access, tirx.BufferStore) else access.source
    return tirx.address_of(buffer[_at_zero(access.indices[0], loops)])


def _stride(access: Any, variable: Any) -> int:
    index = access.indices[0]
    step = _replaced(index, variable, 1) - _replaced(index, variable, 0)
    return int(tvm.sym.Analyzer().simplify(step))


def _at_zero(index: Any, loops: list[_Loop]) -> Any:
    for loop in loops:
        index = _replaced(index, loop.variable, 0)
    return index


def _replaced(index: Any, variable: Any, value: int) -> Any:
    number = tirx.const(value, "int32")
    return tvm_ffi.structural_map(
        index, (tvm.ir.Var, lambda v: number if v.same_as(variable) else v)
    )
