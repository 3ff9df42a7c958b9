"""Checks a kernel on a GPU against the oracle; needs no framework there, only the runtime."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tvmconv import oracle
from tvmconv.errors import BuildError
from tvmconv.oracle import Difference
from tvmconv.runtime import GpuKernel
from tvmconv.spec import ConvSpec

# Images of a batch that differ; the rest repeats them. The oracle takes seconds for a whole batch of 32.
DISTINCT = 3
# Bytes around the output that must stay as they are; a multiple of the alignment that kernels may expect.
_GUARD = 4096


def problem(spec: ConvSpec) -> tuple[dict[str, Any], Any]:
    """Random arguments of a spec, and what must come out; at most `DISTINCT` images differ."""
    batch = spec.batch
    few = min(batch, DISTINCT)
    if few == batch or len(spec.input_shape) != 4:
        arguments = oracle.random_arguments(spec, seed=0, wrap=spec.out_dtype == "int32")
        return arguments, oracle.conv(spec, **arguments)
    small = dataclasses.replace(spec, input_shape=(few, *spec.input_shape[1:]))
    arguments, expected = problem(small)
    repeated = [number % few for number in range(batch)]
    for name in ("data", "residual"):
        if name in arguments:
            arguments[name] = arguments[name][repeated]
    return arguments, expected[repeated]


def check(kernel: GpuKernel) -> Difference:
    """Run a kernel twice, the second time into the middle of a larger array; return the worst difference.

    Raises BuildError for wrong values or for writing beyond the output, DeviceError where CUDA refuses.
    """
    spec, gpu = kernel.spec, kernel.gpu
    arguments, expected = problem(spec)
    here = {name: gpu.upload(array) for name, array in arguments.items()}
    layer = kernel.bind(here["filter"], here.get("bias"))
    returned = gpu.download(layer(here["data"], here.get("residual")))
    first = oracle.assert_close(spec, expected, returned)
    if not returned.size:
        return first
    around = gpu.upload(np.full(returned.nbytes + 2 * _GUARD, 0xFF, np.uint8))
    data, residual = here["data"], here.get("residual")
    layer.run_at(
        int(data.data_ptr()),
        0 if residual is None else int(residual.data_ptr()),
        int(around.data_ptr()) + _GUARD,
        0,
    )
    held = gpu.download(around)
    if (held[:_GUARD] != 0xFF).any() or (held[-_GUARD:] != 0xFF).any():
        raise BuildError(f"{spec.key}: the kernel writes beyond its output. Do not use it.")
    out = held[_GUARD:-_GUARD].view(returned.dtype).reshape(spec.output_shape)
    second = oracle.assert_close(spec, expected, out)
    return max(first, second, key=lambda difference: difference.error)
