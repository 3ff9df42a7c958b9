"""Checks a kernel on a GPU against the oracle; needs no framework there, only the runtime."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tvmconv.checking import oracle
from tvmconv.checking.oracle import Difference
from tvmconv.errors import BuildError
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import GpuKernel, tensors

# Images of a batch that differ; the rest repeats them. The oracle takes seconds for a whole batch of 32.
DISTINCT = 3
# Bytes around the output that must stay as they are; a multiple of the alignment that kernels may expect.
GUARD = 4096


@dataclasses.dataclass(frozen=True)
class Problem:
    """Random arguments of a spec, and what must come out.

    ``spec`` and ``expected`` are for the images that differ; ``images`` says which of those each image of
    the whole batch is.
    """

    arguments: dict[str, Any]
    spec: ConvSpec
    expected: Any
    images: list[int]


def problem(spec: ConvSpec) -> Problem:
    """Draw a problem, of whose images at most `DISTINCT` differ."""
    count = spec.input_shape[0]
    few = min(count, DISTINCT) if len(spec.input_shape) == 4 else count
    small = dataclasses.replace(spec, input_shape=(few, *spec.input_shape[1:]))
    arguments = oracle.random_arguments(small, seed=0, wrap=spec.out_dtype == "int32")
    expected = oracle.conv(small, **arguments)
    images = [number % few if few else 0 for number in range(count)]
    for name in ("data", "residual"):
        if name in arguments:
            arguments[name] = arguments[name][images]
    return Problem(arguments, small, expected, images)


def compare(found: Problem, spec: ConvSpec, out: Any) -> Difference:
    """Compare an output with the oracle's; raises BuildError beyond tolerance.

    Images that repeat another and have the very same output need not be compared again, which takes longer
    than the oracle for a batch of 32.
    """
    few = len(found.expected)
    worst = oracle.assert_close(found.spec, found.expected, out[:few])
    if (out[:few][found.images].view(np.uint8) != out.view(np.uint8)).any():
        worst = oracle.assert_close(spec, found.expected[found.images], out)
    return worst


def inside(spec: ConvSpec, held: Any) -> Any:
    """Return the output from within an array of bytes that had `GUARD` of 0xFF on both its sides.

    Raises BuildError where those are altered.
    """
    if (held[:GUARD] != 0xFF).any() or (held[-GUARD:] != 0xFF).any():
        raise BuildError(f"{spec.key}: the kernel writes beyond its output. Do not use it.")
    dtype = tensors.numpy_dtype(spec.out_dtype)
    return held[GUARD:-GUARD].view(dtype).reshape(spec.output_shape)


def check(kernel: GpuKernel) -> Difference:
    """Run a kernel twice, the second time into the middle of a larger array; return the worst difference.

    Raises BuildError for wrong values or for writing beyond the output, DeviceError where CUDA refuses.
    """
    spec, gpu = kernel.spec, kernel.gpu
    found = problem(spec)
    here = {name: gpu.upload(array) for name, array in found.arguments.items()}
    layer = kernel.bind(here["filter"], here.get("bias"), here.get("slopes"))
    returned = gpu.download(layer(here["data"], here.get("residual")))
    first = compare(found, spec, returned)
    if not returned.size:
        return first
    around = gpu.upload(np.full(returned.nbytes + 2 * GUARD, 0xFF, np.uint8))
    data, residual = here["data"], here.get("residual")
    layer.run_at(
        int(data.data_ptr()),
        0 if residual is None else int(residual.data_ptr()),
        int(around.data_ptr()) + GUARD,
        0,
    )
    second = compare(found, spec, inside(spec, gpu.download(around)))
    return max(first, second, key=lambda difference: difference.error)
