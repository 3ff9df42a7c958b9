"""Concatenation where the parts do not lie one behind the other: row by row, each part a copy."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import tvm
from tvm import tirx

from tvmconv.hardware import Machine
from tvmconv.lowering.interface import with_interface
from tvmconv.models.graph import Node, Tensor
from tvmconv.models.rest import loops


def concat(node: Node, tensors: Sequence[Tensor], machine: Machine) -> Any:
    """Return the function of concat.

    Written as loops, since a tensor expression would ask of every element which part it is of.
    """
    axis, dtype = node.attributes["axis"], node.tensor.dtype
    rows = prod(node.tensor.shape[:axis])
    lanes = machine.cpu.vector_bytes // tvm.DataType(dtype).itemsize
    widths = [prod(tensor.shape[axis:]) for tensor in tensors]
    parts = [tirx.decl_buffer((rows, width), dtype, f"x{i}") for i, width in enumerate(widths)]
    out = tirx.decl_buffer((rows, sum(widths)), dtype, "out")
    row = tvm.ir.Var("row", tvm.ir.PrimType("int32"))
    copies, begin = [], 0
    for part, width in zip(parts, widths, strict=True):
        copies += _copies(part, out, row, width, begin, lanes)
        begin += width
    large = loops.is_large(node.tensor.shape, dtype) and rows > 1
    kind = tirx.ForKind.PARALLEL if large else tirx.ForKind.SERIAL
    body = tirx.For(row, 0, rows, kind, tirx.SeqStmt(copies) if len(copies) > 1 else copies[0])
    return with_interface(tirx.PrimFunc([*parts, out], body), {}, frozenset())


def _copies(part: Any, out: Any, row: Any, width: int, begin: int, lanes: int) -> list[Any]:
    """Return the loops that copy a row of one part: of whole vectors, then of the rest."""
    whole, rest = width // lanes, width % lanes
    found = []
    if whole:
        block, lane = _variable("block"), _variable("lane")
        at = block * lanes + lane
        store = tirx.BufferStore(out, part[row, at], [row, begin + at])
        inner = tirx.For(lane, 0, lanes, tirx.ForKind.VECTORIZED, store)
        found.append(tirx.For(block, 0, whole, tirx.ForKind.SERIAL, inner))
    if rest:
        lane = _variable("lane")
        at = whole * lanes + lane
        store = tirx.BufferStore(out, part[row, at], [row, begin + at])
        kind = tirx.ForKind.VECTORIZED if rest > 1 else tirx.ForKind.SERIAL
        found.append(tirx.For(lane, 0, rest, kind, store))
    return found


def _variable(name: str) -> Any:
    return tvm.ir.Var(name, tvm.ir.PrimType("int32"))
