"""A kernel from loops to counts: compiled for its machine, run in the emulator, checked, counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmconv import writing
from tvmconv.building.compile import compile_functions
from tvmconv.errors import BuildError
from tvmconv.hardware import Function, Machine
from tvmconv.measuring.simulate.caches import Caches
from tvmconv.measuring.simulate.emulator import Counts, Emulator
from tvmconv.problem import calling
from tvmconv.problem.calling import Role
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import arrays

Array = npt.NDArray[Any]


def object_file(function: Function, machine: Machine) -> bytes:
    """Compile a scheduled function and its packing for a machine of any architecture."""
    functions = {"main": function.main}
    if function.pack is not None:
        functions["pack"] = function.pack
    module = compile_functions(functions, machine.target).mod
    with writing.scratch("tvmconv-simulate-") as folder:
        path = folder / "kernel.o"
        module.write_to_file(str(path))
        return path.read_bytes()


def run(
    content: bytes,
    spec: ConvSpec,
    function: Function,
    arguments: Mapping[str, Array],
    caches: Caches | None = None,
) -> tuple[Counts, Array]:
    """Run the `object_file` of ``function`` on ``arguments``; return what it took, and the output.

    Packing the filter is run too, but not counted: it happens once. Raises BuildError when the kernel
    reads or writes where no array is, MissingToolError without the emulator.
    """
    emulator = Emulator(content)
    signature = calling.signature(spec, function)
    given = {name: np.ascontiguousarray(array) for name, array in arguments.items()}
    if signature["filter"].packed:
        packed = arrays.empty(signature["filter"])
        packed[...] = 0
        emulator.call("pack", [given["filter"], packed])
        given["filter"] = packed
    for operand in signature.of(Role.SCRATCH, Role.OUTPUT):
        given[operand.name] = arrays.empty(operand)
        # Not a number, as floats of any width: what is left as it was is found by the comparison.
        given[operand.name].view(np.uint8)[...] = 0xFF
    counts = emulator.call("main", arrays.ordered(signature, given), caches)
    return counts, given["out"].reshape(spec.output_shape)


def simulate(
    function: Function, machine: Machine, spec: ConvSpec, arguments: Mapping[str, Array]
) -> tuple[Counts, Array]:
    """Compile and `run` one function."""
    if machine.architecture != "aarch64":
        raise BuildError(
            f"{machine.name} is {machine.architecture}: only aarch64 machines can be simulated. "
            "`tvmconv machines` lists them."
        )
    return run(object_file(function, machine), spec, function, arguments)
