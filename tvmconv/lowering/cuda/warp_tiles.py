"""A lowering pass: tiles of a warp become registers of its threads, and calls that work on these.

Tensor cores multiply matrices that lie in the registers of 32 threads, in an order that TVM knows nothing of.
A schedule writes the plain loops over a tile and annotates the outermost with what they do; as plain loops a
CPU can run them. Here each nest becomes one call of a device function of `prelude`, and each
array of such tiles the registers that one thread holds of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from tvmconv.errors import BuildError
from tvmconv.lowering.cuda.prelude import NUMBERS

FRAGMENT = "tvmconv.fragment"  # annotation of a tile's outermost loop: one of the next five
ZERO, MULTIPLY, STORE = "zero", "multiply", "store"
LOAD_FIRST, LOAD_SECOND = "load_first", "load_second"  # of a product's two operands
# Rows of every tile; columns of sums; bytes of a row of operands.
TILE_ROWS = TILE_COLUMNS = 16
SLAB_BYTES = 32
_THREADS = 32
_WORD_BYTES = 4


@dataclass(frozen=True)
class _Fragments:
    """An array of tiles as its loops see it, and the registers of one thread that replace it."""

    rows: Any
    registers: Any
    tile_columns: int

    def tile(self, indices: Any) -> Any:
        """Address of the first register of the tile that an element lies in."""
        *_, row, column = indices
        across = int(self.rows.shape[-1]) // self.tile_columns
        number = row // TILE_ROWS * across + column // self.tile_columns
        words = TILE_ROWS * self.tile_columns // _THREADS
        if self.registers.dtype == "uint32":
            words = TILE_ROWS * SLAB_BYTES // _THREADS // _WORD_BYTES
        at = tvm.sym.Analyzer().simplify(number * words)
        return tirx.address_of(self.registers[at])


@tirx.transform.prim_func_pass(opt_level=0)
def call_warp_tiles(func: tirx.PrimFunc, _mod: tvm.IRModule, _ctx: Any) -> tirx.PrimFunc:
    """Replace every annotated nest; wants buffers that are not flat yet."""
    found: dict[Any, _Fragments] = {}

    def note(node: Any) -> None:
        if isinstance(node, tirx.For) and FRAGMENT in node.annotations:
            for buffer, columns in _arrays(node):
                found.setdefault(buffer, _registers(buffer, columns))

    tvm_ffi.structural_walk(func.body, note)
    if not found:
        return func

    def call(loop: tirx.For) -> tirx.Stmt:
        return _call(loop, found) if FRAGMENT in loop.annotations else loop

    def allocated(node: tirx.AllocBuffer) -> tirx.AllocBuffer:
        known = found.get(node.buffer)
        return node if known is None else tirx.AllocBuffer(known.registers)

    body = tvm_ffi.structural_map(func.body, (tirx.For, call))
    return func.with_body(tvm_ffi.structural_map(body, (tirx.AllocBuffer, allocated)))


def _arrays(loop: tirx.For) -> Iterable[tuple[Any, int]]:
    """Arrays of tiles that a nest works on, with the columns of their tiles."""
    kind, store = str(loop.annotations[FRAGMENT]), _store(loop)
    if kind in (ZERO, MULTIPLY):
        yield store.buffer, TILE_COLUMNS
    elif kind == STORE:
        yield store.value.source, TILE_COLUMNS
    else:
        yield store.buffer, SLAB_BYTES // tvm.DataType(store.buffer.dtype).itemsize


def _registers(buffer: Any, columns: int) -> _Fragments:
    *_, rows, width = (int(extent) for extent in buffer.shape)
    if rows % TILE_ROWS or width % columns:
        raise BuildError(f"{buffer.name} has {rows} x {width} elements: no whole tiles of a warp")
    each = rows * width // _THREADS
    dtype = str(buffer.dtype)
    if dtype not in ("float32", "int32") or columns != TILE_COLUMNS:
        each, dtype = each * tvm.DataType(dtype).itemsize // _WORD_BYTES, "uint32"
    return _Fragments(buffer, tirx.decl_buffer((each,), dtype, buffer.name, scope="local"), columns)


def _call(loop: tirx.For, fragments: dict[Any, _Fragments]) -> tirx.Stmt:
    kind, store, variables = str(loop.annotations[FRAGMENT]), _store(loop), _variables(loop)

    def tile(access: Any) -> Any:
        buffer = access.buffer if isinstance(access, tirx.BufferStore) else access.source
        return fragments[buffer].tile(_at_zero(access.indices, variables))

    if kind == ZERO:
        arguments = [tile(store)]
    elif kind == MULTIPLY:
        first, second = (_load(operand) for operand in (store.value.b.a, store.value.b.b))
        arguments = [tile(store), tile(first), tile(second)]
        kind = f"{kind}_{NUMBERS[str(first.source.dtype)]}_{NUMBERS[str(second.source.dtype)]}"
    elif kind in (LOAD_FIRST, LOAD_SECOND):
        arguments = [tile(store), *_matrix(store.value.source, store.value.indices, variables)]
        if kind == LOAD_FIRST and str(store.buffer.dtype) == "float32":
            # Filters are rounded when they are packed.
            kind = f"{kind}_{NUMBERS['float32']}"
    else:
        arguments = [*_matrix(store.buffer, store.indices, variables), tile(store.value)]
    return tirx.Evaluate(tirx.call_extern("void", f"tvmconv_{kind}", *arguments))


def _matrix(buffer: Any, indices: Any, variables: list[Any]) -> list[Any]:
    """Address of a tile in memory, and the bytes from one of its rows to the next."""
    element = tvm.DataType(buffer.dtype).itemsize
    row = int(buffer.strides[-2]) if len(buffer.strides) else int(buffer.shape[-1])
    first = tirx.address_of(buffer[tuple(_at_zero(indices, variables))])
    return [first, tirx.const(row * element, "int32")]


def _store(loop: Any) -> Any:
    body = loop
    while isinstance(body, tirx.For):
        body = body.body
    if not isinstance(body, tirx.BufferStore):
        raise BuildError(f"this is no tile of a warp: {loop}")
    return body


def _variables(loop: Any) -> list[Any]:
    found, body = [], loop
    while isinstance(body, tirx.For):
        found.append(body.loop_var)
        body = body.body
    return found


def _load(value: Any) -> Any:
    """The load below conversions."""
    while isinstance(value, tirx.Cast):
        value = value.value
    return value


def _at_zero(indices: Any, variables: list[Any]) -> list[Any]:
    """Indices where all loops of a tile begin."""
    zero = tirx.const(0, "int32")

    def replaced(variable: Any) -> Any:
        return zero if any(variable.same_as(each) for each in variables) else variable

    return [tvm_ffi.structural_map(index, (tvm.ir.Var, replaced)) for index in indices]
