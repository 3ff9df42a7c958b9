"""When values of a program are alive, and which of them share memory."""

from __future__ import annotations

from tvmconv.models.arena import Lifetime
from tvmconv.models.program import Program


def outside_arena(program: Program) -> set[str]:
    """Values that lie in the caller's arrays or in the weights."""
    graph = program.graph
    return {*graph.inputs, *graph.outputs.values(), *program.placed, *program.constants}


def lifetimes(program: Program) -> dict[str, Lifetime]:
    """Return when each value of the arena is alive, in numbers of calls."""
    outside = outside_arena(program)
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for step, call in enumerate(program.calls):
        for name in (*call.inputs, call.result):
            home = program.home(name)[0]
            if home not in outside:
                first.setdefault(home, step)
                last[home] = step
    return {name: Lifetime(first[name], last[name], program.tensors[name].bytes) for name in first}
