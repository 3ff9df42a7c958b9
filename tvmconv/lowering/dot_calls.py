"""A lowering pass: loops over a vector's lanes, and a word's values, become one call of a function.

Loops that add products to sums, that put words together, and that turn sums into bytes.

TVM's tensorize would do, were it not that the last tile of a row is ragged: its block has a predicate,
which tensorize (0.27) takes for a mismatch.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from tvmconv.errors import BuildError
from tvmconv.lowering.runs import power_of_two_runs
from tvmconv.problem import quantized

# Annotation of the loop over lanes: the function to call, with accumulators, data and filter. Where the
# loop holds another, over the values of a word, data are words as int32: one in every lane, or one a lane.
DOT = "tvmconv.dot"
# Annotation of a loop over lanes around one over the bytes of a word: the function to call, with a vector of
# each byte. It returns the bytes of all words.
WORDS = "tvmconv.words"
# Annotation of a loop over rows around one over columns around one over what is summed: the function to call,
# with the sums, row by row, a vector of each row of data, and all of the filter, column by column.
MATRIX = "tvmconv.matrix"

# Annotation of a loop over lanes that stores bytes of a quantised epilogue: what the functions to call, one
# for each run of lanes, are named before their length; with the sums, their scales and the limits.
BYTES = "tvmconv.bytes"


@tirx.transform.prim_func_pass(opt_level=0)
def call_dot_products(func: tirx.PrimFunc, _mod: tvm.IRModule, _ctx: Any) -> tirx.PrimFunc:
    """Replace every annotated nest; wants flat buffers."""
    body = tvm_ffi.structural_map(func.body, (tirx.For, _matrix))
    return func.with_body(tvm_ffi.structural_map(body, (tirx.For, _in_nest)))


def _matrix(rows: tirx.For) -> tirx.Stmt:
    """Replace three loops by a product of matrices."""
    if MATRIX not in rows.annotations:
        return rows
    loops, conditions, store = [rows], [], rows.body
    while not isinstance(store, tirx.BufferStore):
        if isinstance(store, tirx.IfThenElse):
            conditions.append(store.condition)
            store = store.then_case
        else:
            loops.append(store)
            store = store.body
    row, column, each = (loop.loop_var for loop in loops)
    columns, depth = int(loops[1].extent), int(loops[2].extent)
    loads = [load for load in _loads(store.value, store.buffer) if _step(load, each, row) == 1]
    filter_ = next(load for load in loads if _step(load, column, each) == depth)
    (data,) = (load for load in loads if load is not filter_)
    first = _start(data.indices[0], column, each)
    starts = [
        tvm_ffi.structural_map(first, (tvm.ir.Var, _at(row, at))) for at in range(int(rows.extent))
    ]
    vectors = [data.source[tirx.Ramp(start, 1, depth)] for start in starts]
    start = _start(filter_.indices[0], row, column, each)
    weights = filter_.source[tirx.Ramp(start, 1, columns * depth)]
    count = int(rows.extent) * columns
    place = tirx.Ramp(_start(store.indices[0], row, column, each), 1, count)
    call = tirx.call_pure_extern(
        f"{store.buffer.dtype}x{count}",
        str(rows.annotations[MATRIX]),
        store.buffer[place],
        *vectors,
        weights,
    )
    stored = tirx.BufferStore(store.buffer, call, [place])
    return tirx.IfThenElse(tirx.all(*conditions), stored, None) if conditions else stored


def _in_nest(lanes: tirx.For) -> tirx.Stmt:
    kinds = [kind for kind in (DOT, WORDS, BYTES) if kind in lanes.annotations]
    if not kinds:
        return lanes
    store, conditions, values = lanes.body, [], None
    while not isinstance(store, tirx.BufferStore):
        if isinstance(store, tirx.IfThenElse):
            conditions.append(store.condition)
            store = store.then_case
        else:
            values, store = store, store.body
    name = str(lanes.annotations[kinds[0]])
    if kinds == [BYTES]:
        call = _bytes(name, lanes, store)
    elif values is None:
        call = _products(name, lanes, store)
    else:
        call = (_dot if DOT in lanes.annotations else _words)(name, lanes, values, store)
    return tirx.IfThenElse(tirx.all(*conditions), call, None) if conditions else call


def _dot(function: str, lanes: tirx.For, values: tirx.For, store: Any) -> tirx.Stmt:
    """``store`` adds the product of one value to one lane; returns the store of all lanes."""
    loads = _loads(store.value, store.buffer)
    count, each = int(lanes.extent), int(values.extent)
    load = _moving(loads, values.loop_var, lanes.loop_var)
    first = _start(load.indices[0], values.loop_var, lanes.loop_var)
    if _step(load, lanes.loop_var, values.loop_var) == each:
        words = tirx.reinterpret(f"int32x{count}", load.source[tirx.Ramp(first, 1, each * count)])
    else:
        data = load.source[tirx.Ramp(first, 1, each)]
        words = tirx.Broadcast(tirx.reinterpret("int32", data), count)
    weights = _run(loads, lanes.loop_var, values.loop_var, count)
    place = _start(store.indices[0], lanes.loop_var, values.loop_var)
    return _stored(function, store.buffer, place, count, words, weights)


def _words(function: str, lanes: tirx.For, values: tirx.For, store: Any) -> tirx.Stmt:
    """``store`` puts one byte into one word; returns the store of all words."""
    count, each = int(lanes.extent), int(values.extent)
    parts = []
    for value in range(each):
        at = _at(values.loop_var, value)
        part = tvm_ffi.structural_map(store.value, (tvm.ir.Var, at))
        parts.append(_vector(tvm.sym.Analyzer().simplify(part), lanes.loop_var, count))
    place = _start(store.indices[0], lanes.loop_var, values.loop_var)
    run = tirx.Ramp(place, 1, count * each)
    call = tirx.call_pure_extern(f"{store.buffer.dtype}x{count * each}", function, *parts)
    return tirx.BufferStore(store.buffer, call, [run])


def _bytes(function: str, lanes: tirx.For, store: Any) -> tirx.Stmt:
    """``store`` scales one sum as `compute.epilogue` does; returns the stores of all bytes."""
    lane = lanes.loop_var
    products: list[Any] = []
    limits: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, tirx.Mul) and isinstance(node.a, tirx.Cast):
            products.append(node)
        elif isinstance(node, tvm.ir.TensorLoad) and node.source.name == quantized.LIMITS:
            limits.append(node.source)

    tvm_ffi.structural_walk(store.value, visit)
    (product,) = products
    numbers = [limits[0][at] for at in (quantized.ZERO_POINT, quantized.LOW, quantized.HIGH)]
    stores = []
    for begin, end in power_of_two_runs(int(lanes.extent)):
        count = end - begin
        sums, scales = (_sum(each, lane, begin, count) for each in (product.a.value, product.b))
        dtype = f"{store.buffer.dtype}x{count}"
        call = tirx.call_pure_extern(dtype, f"{function}_{count}", sums, scales, *numbers)
        place = tirx.Ramp(_start(store.indices[0], lane) + begin, 1, count)
        stores.append(tirx.BufferStore(store.buffer, call, [place]))
    return tirx.SeqStmt(stores) if len(stores) > 1 else stores[0]


def _sum(value: Any, lane: Any, begin: int, count: int) -> Any:
    """Lanes from ``begin`` on of a sum of loads."""
    if isinstance(value, tirx.Add):
        return _sum(value.a, lane, begin, count) + _sum(value.b, lane, begin, count)
    load = _moving([value], lane, lane)
    return load.source[tirx.Ramp(_start(load.indices[0], lane) + begin, 1, count)]


def _products(function: str, lanes: tirx.For, store: Any) -> tirx.Stmt:
    """``store`` adds one product to one lane; returns the store of all lanes."""
    count, lane = int(lanes.extent), lanes.loop_var
    product = store.value.b
    data = _vector(product.a, lane, count)
    weights = _run(_loads(product.b, store.buffer), lane, lane, count)
    return _stored(function, store.buffer, _start(store.indices[0], lane), count, data, weights)


def _vector(value: Any, lane: Any, count: int) -> Any:
    """All lanes of the data, before it is widened; where it is padding is the same in all of them."""
    if not _depends(value, lane):
        return tirx.Broadcast(value, count)
    if isinstance(value, tirx.Cast):
        return _vector(value.value, lane, count)
    if isinstance(value, tvm.ir.TensorLoad):
        return _run([value], lane, lane, count)
    inside, there, zero = value.args
    return tirx.if_then_else(inside, _vector(there, lane, count), _vector(zero, lane, count))


def _depends(value: Any, variable: Any) -> bool:
    found: list[Any] = []
    tvm_ffi.structural_walk(
        value, lambda node: found.append(node) if node.same_as(variable) else None
    )
    return bool(found)


def _loads(value: Any, sums: Any) -> list[Any]:
    """Loads in ``value`` of anything but the sums."""
    loads: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, tvm.ir.TensorLoad) and not node.source.same_as(sums):
            loads.append(node)

    tvm_ffi.structural_walk(value, visit)
    return loads


def _stored(function: str, sums: Any, place: Any, count: int, data: Any, weights: Any) -> tirx.Stmt:
    lanes = tirx.Ramp(place, 1, count)
    dtype = f"{sums.dtype}x{count}"
    call = tirx.call_pure_extern(dtype, function, sums[lanes], data, weights)
    return tirx.BufferStore(sums, call, [lanes])


def _run(loads: list[Any], moving: Any, still: Any, count: int) -> Any:
    """The one load that moves with ``moving``, ``count`` elements of it at once."""
    load = _moving(loads, moving, still)
    return load.source[tirx.Ramp(_start(load.indices[0], moving, still), 1, count)]


def _moving(loads: list[Any], moving: Any, still: Any) -> Any:
    """The load whose elements along ``moving`` lie next to each other."""
    for load in loads:
        if _step(load, moving, still) == 1:
            return load
    raise BuildError(f"no operand of a dot product lies next to itself along {moving.name}")


def _step(load: Any, moving: Any, still: Any) -> int | None:
    """Elements from one place of a load to its next along ``moving``; None where that is no number."""
    first = _start(load.indices[0], moving, still)
    second = tvm_ffi.structural_map(load.indices[0], (tvm.ir.Var, _at(moving, 1, still)))
    step = tvm.sym.Analyzer().simplify(second - first)
    return int(step) if isinstance(step, tirx.IntImm) else None


def _start(index: Any, *variables: Any) -> Any:
    """``index`` with all ``variables`` at 0."""
    for variable in variables:
        index = tvm_ffi.structural_map(index, (tvm.ir.Var, _at(variable, 0)))
    return index


def _at(variable: Any, value: int, still: Any = None) -> Any:
    def replaced(v: Any) -> Any:
        if v.same_as(variable):
            return tirx.const(value, "int32")
        return tirx.const(0, "int32") if still is not None and v.same_as(still) else v

    return replaced
