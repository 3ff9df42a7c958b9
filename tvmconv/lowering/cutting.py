"""Where vectors end because an operand has fewer channels than the output: no vector is half inside.

A residual of fewer channels is read under ``channel < residual_channels``. TVM computes a vector under a
condition that differs among its lanes one lane at a time, so a loop over lanes is cut where the condition
changes, and in each piece it becomes one of the tile alone.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import sym, tirx


def pieces(loop: tirx.For) -> list[tuple[int, int, Any]]:
    """Return (first lane, lanes, body) of each piece of a vector loop, in order."""
    extent, bounds = int(loop.extent), _bounds(loop)
    if len({bound for _, _, bound in bounds}) != 1:
        return [(0, extent, loop.body)]
    (cut,) = {bound for _, _, bound in bounds}
    halves = [(0, cut, 1), (cut, extent - cut, 0)] if cut else [(0, extent, 0)]
    return [(first, lanes, _decided(loop.body, bounds, more)) for first, lanes, more in halves]


def _bounds(loop: tirx.For) -> list[tuple[Any, Any, int]]:
    """Conditions ``base + lane < limit``: each with its base less the limit, and the lane where it changes.

    Only those whose base moves on by whole vectors, so that this lane is the same in all of them.
    """
    found: list[tuple[Any, Any, int]] = []
    analyzer, extent = sym.Analyzer(), int(loop.extent)

    def note(call: Any) -> None:
        if not _is_choice(call) or not isinstance(call.args[0], tirx.LT):
            return
        condition = call.args[0]
        base = analyzer.simplify(condition.a - condition.b - loop.loop_var)
        steps = analyzer.modular_set(base)
        if _has(condition, loop) and not _has(base, loop) and int(steps.coeff) % extent == 0:
            found.append((condition, base, -int(steps.base) % extent))

    tvm_ffi.structural_walk(loop.body, note)
    return found


def _has(expression: Any, loop: tirx.For) -> bool:
    return any(each.same_as(loop.loop_var) for each in tirx.analysis.undefined_vars(expression))


def _is_choice(node: Any) -> bool:
    return isinstance(node, tvm.ir.Call) and node.op == tvm.ir.Op.get("prim.if_then_else")


def _decided(body: Any, bounds: list[tuple[Any, Any, int]], more: int) -> Any:
    """The body in which the conditions are those of all lanes of a piece."""

    def decide(node: Any) -> Any:
        for condition, base, cut in bounds:
            if node.same_as(condition):
                return base < (more - cut if more else -cut)
        return node

    return tvm_ffi.structural_map(body, (tirx.LT, decide))
