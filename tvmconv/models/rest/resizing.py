"""Resizing of images: where a pixel comes from is computed in whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import te, tirx

from tvmconv.hardware import Machine
from tvmconv.models.graph import Node, Tensor
from tvmconv.models.resizing import CUBIC
from tvmconv.models.rest import loops
from tvmconv.problem.rules import summed_in


def _position(at: Any, source: int, target: int, coordinates: str) -> tuple[Any, int]:
    """Return where pixel ``at`` of the result is in the source, as a fraction of whole numbers."""
    if coordinates == "half_pixel":
        return (2 * at + 1) * source - target, 2 * target
    if coordinates == "align_corners" and target > 1:
        return at * (source - 1), target - 1
    return at * source, target


def _clamped(at: Any, extent: int) -> Any:
    return tirx.max(tirx.min(at, extent - 1), 0)


def _nearest(at: Any, source: int, target: int, node: Node) -> Any:
    top, bottom = _position(at, source, target, node.attributes["coordinates"])
    rounding = node.attributes["rounding"]
    if rounding == "floor":
        index = tirx.floordiv(top, bottom)
    elif rounding == "ceil":
        index = tirx.floordiv(top + bottom - 1, bottom)
    elif rounding == "half_down":
        index = tirx.floordiv(2 * top + bottom - 1, 2 * bottom)
    else:
        index = tirx.floordiv(2 * top + bottom, 2 * bottom)
    return _clamped(index, source)


def _taps(at: Any, source: int, target: int, node: Node, dtype: str) -> list[tuple[Any, Any]]:
    """Return the pixels of the source along one axis, and their weights."""
    top, bottom = _position(at, source, target, node.attributes["coordinates"])
    low = tirx.floordiv(top, bottom)
    part = (top - low * bottom).astype(dtype) * tirx.const(1 / bottom, dtype)
    if node.attributes["method"] == "bilinear":
        one = tirx.const(1, dtype)
        return [(_clamped(low, source), one - part), (_clamped(low + 1, source), part)]
    return [(_clamped(low + k, source), _cubic(part, k, dtype)) for k in (-1, 0, 1, 2)]


def _cubic(part: Any, tap: int, dtype: str) -> Any:
    """Keys' kernel at the distance of a tap."""
    a = CUBIC
    x = part - tirx.const(tap, dtype) if tap < 1 else tirx.const(tap, dtype) - part

    def polynomial(*coefficients: float) -> Any:
        value = tirx.const(coefficients[0], dtype)
        for each in coefficients[1:]:
            value = value * x + tirx.const(each, dtype)
        return value

    if tap in (0, 1):
        return polynomial(a + 2, -(a + 3), 0, 1)
    return polynomial(a, -5 * a, 8 * a, -4 * a)


def resize(node: Node, tensors: Sequence[Tensor], machine: Machine) -> Any:
    """Return the function of resize."""
    data, (oh, ow) = tensors[0], node.attributes["size"]
    _, height, width, _ = data.shape
    dtype = summed_in(data.dtype)
    x = te.placeholder(data.shape, data.dtype, name="x")

    def element(n: Any, h: Any, w: Any, c: Any) -> Any:
        if node.attributes["method"] == "nearest":
            row, column = _nearest(h, height, oh, node), _nearest(w, width, ow, node)
            return x[n, row, column, c]
        total: Any = None
        columns = _taps(w, width, ow, node, dtype)
        for row, weight in _taps(h, height, oh, node, dtype):
            line: Any = None
            for column, part in columns:
                term = x[n, row, column, c].astype(dtype) * part
                line = term if line is None else line + term
            total = line * weight if total is None else total + line * weight
        return total.astype(data.dtype)

    out = te.compute(node.tensor.shape, element, name="out")
    schedule = loops.start([x, out])
    loops.apply_rule(schedule, machine, node.tensor.shape, node.tensor.dtype, fuse=2)
    return loops.finished(schedule)
