"""A kernel from loops to counts: compiled for its machine, run in the emulator, checked, counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmconv import writing
from tvmconv.building.compile import compile_functions
from tvmconv.checking import oracle
from tvmconv.errors import BuildError
from tvmconv.hardware import Function, Machine
from tvmconv.measuring.simulate.caches import Caches
from tvmconv.measuring.simulate.emulator import Counts, Emulator
from tvmconv.problem.spec import ConvSpec

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
    weights = np.ascontiguousarray(arguments["filter"])
    if function.pack is not None:
        packed = np.zeros(function.packed_shape, oracle.numpy_dtype(function.packed_dtype))
        emulator.call("pack", [weights, packed])
        weights = packed
    images = [_as_called(spec, arguments["data"]), weights]
    if spec.bias:
        images.append(arguments["bias"])
    if spec.residual:
        images.append(_as_called(spec, arguments["residual"]))
    # Not a number, as floats of any width: what is left as it was is found by the comparison.
    out = np.empty(spec.output_shape, oracle.numpy_dtype(spec.out_dtype))
    out.view(np.uint8)[...] = 0xFF
    called = _as_called(spec, out)
    counts = emulator.call("main", [*images, called], caches)
    return counts, called.reshape(spec.output_shape)


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


def _as_called(spec: ConvSpec, array: Array) -> Array:
    """Images of any rank as kernels take them: with one batch dimension."""
    return np.ascontiguousarray(array).reshape((spec.batch, *array.shape[-3:]))
