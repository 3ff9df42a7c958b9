"""The constants of a compiled model as one file: packed for its kernels, each on a cache line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tvmconv.building import builder
from tvmconv.building.compile import compile_functions
from tvmconv.hardware import Function
from tvmconv.models.arena import ALIGNMENT, aligned
from tvmconv.models.graph import Array
from tvmconv.models.program import Packing, Program
from tvmconv.runtime import arrays, tensors

# The build machine computes what is packed, once: any code will do.
_HERE = {"kind": "llvm"}


def read_constants(program: Program) -> list[str]:
    """Names of the constants that the calls read, each once."""
    homes = (program.home(name)[0] for call in program.calls for name in call.inputs)
    return [name for name in dict.fromkeys(homes) if name in program.constants]


def write(program: Program, functions: Mapping[str, Function], path: Path) -> dict[str, int]:
    """Write all constants that calls read; returns where each begins. Equal ones are written once."""
    offsets: dict[str, int] = {}
    seen: dict[bytes, int] = {}
    end = 0
    with path.open("wb") as file:
        for name, array in _arrays(program, functions):
            content = np.ascontiguousarray(array).tobytes()
            if content not in seen:
                seen[content] = end
                end += file.write(content.ljust(max(aligned(len(content)), ALIGNMENT), b"\0"))
            offsets[name] = seen[content]
    return offsets


def _arrays(program: Program, functions: Mapping[str, Function]) -> Iterable[tuple[str, Array]]:
    names = read_constants(program)
    keys = {each.key for name in names if isinstance(each := program.constants[name], Packing)}
    packs = {builder.pack_symbol(key): functions[key].pack for key in sorted(keys)}
    module: Any = compile_functions(packs, _HERE).jit() if packs else None
    for name in names:
        constant = program.constants[name]
        if not isinstance(constant, Packing):
            yield name, constant
            continue
        function = functions[constant.key]
        source = arrays.aligned_copy(program.graph.constants[constant.filter])
        dtype = tensors.numpy_dtype(function.packed_dtype)
        target = arrays.empty_aligned(function.packed_shape, dtype)
        module[builder.pack_symbol(constant.key)](
            arrays.array_pointer(source), arrays.array_pointer(target)
        )
        yield name, target
