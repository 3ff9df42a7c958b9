"""A lowering pass: while one panel of the filter is used, the next one is fetched.

Where few pixels use a large filter, a kernel waits for memory during the first tile of a panel and for
nothing during the others. The processor's own prefetchers stop at the end of a page; so every step of the
reduction asks for its share of the next panel, which is then in the second-level cache in time.
"""

from __future__ import annotations

import math
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

# Annotation of the outermost loop over the tiles that use one panel: [how many loops over tiles].
TILES = "tvmconv.tiles"
# Annotation of the innermost reduction loop: [elements of a panel, elements from it to the next in use,
# elements that one step of the loop reads].
PANEL = "tvmconv.panel"
LINE_BYTES = 64
_READ, _SECOND_LEVEL, _DATA = 0, 2, 1  # llvm.prefetch's arguments; locality 3 is the first level
_FILTER = "filter"
_ZERO = tirx.const(0, "int32")


@tirx.transform.prim_func_pass(opt_level=0)
def prefetch_panels(func: tirx.PrimFunc, _mod: tvm.IRModule, _ctx: Any) -> tirx.PrimFunc:
    """Add prefetches to every annotated nest; wants flat buffers."""
    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.For, _in_nest)))


def _in_nest(nest: tirx.For) -> tirx.For:
    if TILES not in nest.annotations:
        return nest
    tiles, inner = [nest], nest.body
    for _ in range(int(nest.annotations[TILES][0]) - 1):
        tiles.append(inner)
        inner = inner.body

    def replaced(loop: tirx.For) -> tirx.For:
        return _with_prefetch(loop, tiles) if PANEL in loop.annotations else loop

    mapped: tirx.For = tvm_ffi.structural_map(nest, (tirx.For, replaced))
    return mapped


def _with_prefetch(reduction: tirx.For, tiles: list[tirx.For]) -> tirx.For:
    """Ask in each step for what it reads here of the next panel, over the number of tiles.

    Tile t of T fetches the t-th part of the next panel, as far as the reduction has come.
    """
    panel, distance, step = (int(value) for value in reduction.annotations[PANEL])
    load, inside = _filter_load(reduction.body)
    first = tvm_ffi.structural_map(
        load.indices[0],
        (tvm.ir.Var, lambda v: _ZERO if any(v.same_as(i) for i in inside) else v),
    )
    number: Any = 0
    for loop in tiles:
        number = number * loop.extent + loop.loop_var
    count = math.prod(int(loop.extent) for loop in tiles)
    done = first % panel
    start = first - done + distance + number * (panel // count) + done // count
    element_bytes = tvm.DataType(load.source.dtype).itemsize
    lines = -(-step * element_bytes // (count * LINE_BYTES))
    fetches = [
        tirx.Evaluate(_prefetch(load.source, start + line * (LINE_BYTES // element_bytes)))
        for line in range(lines)
    ]
    return tirx.For(
        reduction.loop_var,
        reduction.min,
        reduction.extent,
        reduction.kind,
        tirx.SeqStmt([*fetches, reduction.body]),
    )


def _filter_load(body: Any) -> tuple[Any, list[Any]]:
    """A load of the filter in ``body``, and the variables of the loops in it."""
    loads: list[Any] = []
    variables: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, tirx.For):
            variables.append(node.loop_var)
        elif isinstance(node, tvm.ir.TensorLoad) and node.source.name == _FILTER:
            loads.append(node)

    tvm_ffi.structural_walk(body, visit)
    return loads[0], variables


def _prefetch(source: Any, index: Any) -> Any:
    address = tirx.address_of(source[index])
    return tirx.call_intrin("void", "tirx.prefetch", address, _READ, _SECOND_LEVEL, _DATA)
