"""Times the kernels of a bundle on a GPU, each beside what the card's memory allows.

NOT YET RUN on a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from tvmconv.building.builder import Progress
from tvmconv.checking import gpu as gpu_check
from tvmconv.checking import oracle
from tvmconv.hardware import Machine
from tvmconv.measuring.bench.rows import LEAST_MS, Compiled, GpuReport, row
from tvmconv.measuring.process import gpu_copies
from tvmconv.measuring.process.cuda_graphs import Clock, Flush, Graph, GraphOf
from tvmconv.measuring.process.gpu_copies import Copies, Tensors
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.workloads import Layer
from tvmconv.runtime import GpuLibrary


def bench(
    library: GpuLibrary,
    layers: Sequence[Layer],
    machine: Machine,
    rounds: int = 7,
    progress: Progress = lambda _what, _done, _total: None,
    cache: str = "warm",
    graph: GraphOf = Graph,
) -> GpuReport:
    """Time every layer, its values checked first; empty ones are left out.

    ``cache`` is one of `copies.CACHES`, ``graph`` what replays launches.

    Raises BuildError for wrong values, DeviceError where CUDA refuses.
    """
    if machine.gpu is None:
        raise ValueError(f"{machine.name} is no GPU")
    rows = []
    todo = [layer for layer in layers if not layer.spec.is_empty]
    for number, layer in enumerate(todo):
        progress(layer.name, number, len(todo))
        wanted = gpu_copies.copies(layer.spec, machine.gpu.l2_bytes, cache)
        times = _times(library, layer.spec, wanted, rounds, graph)
        kernel = library[layer.spec.key]
        made = Compiled(kernel.entry.record or "default", kernel.schedule, kernel.decisions)
        rows.append(row(layer, made, times, machine.gpu.bandwidth))
    device = str(library.gpu.device)
    return GpuReport(tuple(rows), library.variant.machine, rounds, cache, device)


def _times(
    library: GpuLibrary, spec: ConvSpec, wanted: Copies, rounds: int, graph: GraphOf
) -> list[float]:
    """Seconds of one launch in each round."""
    gpu, kernel = library.gpu, library[spec.key]
    gpu_check.check(kernel)
    arguments = oracle.random_arguments(spec, seed=0)
    here = {name: gpu.upload(array) for name, array in arguments.items()}
    launches = Tensors(gpu, spec, here, wanted.count).launches(kernel)
    with contextlib.ExitStack() as kept:
        flush = None
        if wanted.flush:
            flush = Flush(gpu, wanted.flush, graph)
            kept.callback(flush.close)
        clock = kept.enter_context(Clock(gpu, launches, flush, graph))
        clock.seconds(LEAST_MS)
        return [clock.seconds(LEAST_MS) for _ in range(rounds)]
