"""Where the arrays of each call lie, as the manifest says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvmconv.bundle.model_entries import ArgumentEntry
from tvmconv.models.main_function import Layout
from tvmconv.models.program import Program


def arguments(
    program: Program, layout: Layout, functions: Mapping[str, Any]
) -> list[tuple[ArgumentEntry, ...]]:
    """Return the arguments of each call of a program; ``functions`` are those of `main_function`."""
    return [
        tuple(
            _argument(program, layout, name, parameter)
            for name, parameter in zip(
                (*call.inputs, call.result), functions[call.symbol].params, strict=True
            )
        )
        for call in program.calls
    ]


def _argument(program: Program, layout: Layout, name: str, parameter: Any) -> ArgumentEntry:
    shape = tuple(int(extent) for extent in parameter.shape)
    memory, begin = _place(program, layout, *program.home(name))
    return ArgumentEntry(shape, str(parameter.dtype), memory, begin)


def _place(program: Program, layout: Layout, home: str, offset: int) -> tuple[str, int]:
    if home in layout.weights:
        return "weights", layout.weights[home] + offset
    if home in layout.arena.offsets:
        return "arena", layout.arena.offsets[home] + offset
    output = program.placed.get(home, home)
    outputs = list(program.graph.outputs.values())
    if output in outputs:
        return f"output{outputs.index(output)}", offset
    return f"input{list(program.graph.inputs).index(home)}", offset
