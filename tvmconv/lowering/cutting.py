"""Where vectors end because channels do: no vector is half inside.

A residual of fewer channels is read under ``channel < residual_channels``, and a ragged last tile computes
under ``lane < left``. TVM computes a vector under a condition that differs among its lanes one lane at a
time, so a loop over lanes is cut where the condition changes, and in each piece it becomes one of the tile
alone.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import sym, tirx

from tvmconv.lowering.runs import power_of_two_runs


@tirx.transform.prim_func_pass(opt_level=0)
def end_vectors(func: tirx.PrimFunc, _mod: tvm.IRModule, _ctx: Any) -> tirx.PrimFunc:
    """End vector loops of which only the first lanes do something; wants conditions simplified.

    36 channels of a depthwise convolution are 16 + 16 + 4 so: 32x32 takes 4.5 us in place of 8.9, 42 channels
    5.5 of 12.2 (Zen 5, 2026-11).
    """
    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.For, _ended)))


def _ended(loop: tirx.For) -> tirx.Stmt:
    body = loop.body
    if loop.kind != tirx.ForKind.VECTORIZED or not isinstance(body, tirx.IfThenElse):
        return loop
    condition = body.condition
    if body.else_case is not None or not isinstance(condition, tirx.LT):
        return loop
    if not condition.a.same_as(loop.loop_var) or not isinstance(condition.b, tirx.IntImm):
        return loop
    return vectors(loop, [(0, min(int(condition.b), int(loop.extent)), body.then_case)])


def vectors(loop: tirx.For, pieces: list[tuple[int, int, Any]]) -> tirx.Stmt:
    """Cut the pieces (first lane, lanes, body) of a vector loop into vectors of powers of two.

    LLVM 22 pads <24 x float> to 32 in memory but stores 24 of them, so it cannot keep an array of them
    in registers: 1.5 GFLOP/s in place of 190.
    """
    made = []
    for first, length, whole in pieces:
        for begin, end in power_of_two_runs(length):
            lane = tvm.ir.Var(loop.loop_var.name, loop.loop_var.ty)
            body = tvm_ffi.structural_map(
                whole,
                (
                    tvm.ir.Var,
                    lambda v, at=lane + first + begin: at if v.same_as(loop.loop_var) else v,
                ),
            )
            # TVM fails on a vector of one.
            kind = loop.kind if end - begin > 1 else tirx.ForKind.SERIAL
            made.append(tirx.For(lane, 0, end - begin, kind, body))
    return tirx.SeqStmt(made) if len(made) > 1 else made[0]


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
