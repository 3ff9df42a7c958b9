"""Times the kernels of a workload on a board over TVM's RPC: what `bench` does here, done there.

A board checks every kernel's values, and times it, as in the tuner's last comparison. A CPU's roof is
measured before all layers and behind them, not beside each as `bench` does: a question to a board is one
kernel's.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from tvmconv import hardware
from tvmconv.building import cross, toolchain
from tvmconv.building.builder import Progress
from tvmconv.errors import TuningError
from tvmconv.hardware import HardwarePack, Machine
from tvmconv.measuring.bench.bench import work
from tvmconv.measuring.bench.rows import (
    Compiled,
    CpuReport,
    CpuRow,
    GpuReport,
    Report,
    cpu_row,
    row,
)
from tvmconv.measuring.places.boards import Boards
from tvmconv.measuring.places.place import Measurer
from tvmconv.measuring.process.candidate import Candidate
from tvmconv.measuring.process.runner import Conditions
from tvmconv.measuring.roof.probe import Roof
from tvmconv.problem.workloads import Layer
from tvmconv.records.choice import choose


def bench(
    layers: Sequence[Layer],
    machine_name: str,
    boards: Boards,
    threads: int,
    rounds: int,
    progress: Progress,
    directories: Sequence[Path] | None,
    winograd: bool,
    cache: str = "warm",
) -> Report:
    """Time every layer that is not empty, ``rounds`` runs of 3 ms each, one layer after the other.

    Raises TuningError when there is no tracker or no board, or a kernel fails on it; and what building for
    the machine raises.
    """
    toolchain.require_compiler()
    machine, pack = hardware.find_machine(machine_name)
    cross.require(machine.architecture, machine.name)
    todo = [layer for layer in layers if not layer.spec.is_empty]
    timed: list[tuple[Layer, Compiled, list[float]]] = []
    with boards.open(machine, Conditions(threads, cache)) as measurer:
        measured = measurer.roof()
        for layer in todo:
            progress(f"{layer.name} on {measurer.processor.name}", len(timed), len(todo))
            found = _times(layer, machine, pack, measurer, rounds, directories, winograd)
            timed.append((layer, *found))
        if machine.gpu is not None:
            on_gpu = tuple(row(*each, machine.gpu.bandwidth) for each in timed)
            return GpuReport(on_gpu, machine.name, rounds, cache, str(measurer.processor))
        measured = measured.highest(measurer.roof())
        rows = [_row(*each, measured, machine) for each in timed]
        if any(each.above for each in rows):
            measured = measured.highest(measurer.roof())
            for at, layer in enumerate(todo):
                if rows[at].above:
                    progress(f"{layer.name} again, which is faster than a roof", at, len(todo))
                    found = _times(layer, machine, pack, measurer, rounds, directories, winograd)
                    timed[at] = (layer, *found)
            rows = [_row(*each, measured, machine) for each in timed]
        cpu = measurer.processor.name
        return CpuReport(tuple(rows), machine.name, rounds, cache, measured, cpu, threads)


def _row(
    layer: Layer, kernel: Compiled, times: list[float], measured: Roof, machine: Machine
) -> CpuRow:
    done = work(layer.spec, kernel, machine)
    rate = done / statistics.median(times)
    shares = rate / measured.flops_per_second, rate / measured.fed_flops_per_second
    return cpu_row(layer, kernel, times, shares, measured, done)


def _times(
    layer: Layer,
    machine: Machine,
    pack: HardwarePack,
    measurer: Measurer,
    rounds: int,
    directories: Sequence[Path] | None,
    winograd: bool,
) -> tuple[Compiled, list[float]]:
    """What computes the layer, and seconds of one call in each round."""
    choice = choose(layer.spec, machine, pack, directories, winograd)
    candidate = Candidate(choice.schedule.name, choice.decisions)
    times = measurer.interleave(layer.spec, [candidate], rounds)
    if isinstance(times, str):
        raise TuningError(f"{layer.name} ({layer.spec.key}) failed on the board: {times}")
    kernel = Compiled(choice.source, choice.schedule.name, dict(choice.decisions))
    return kernel, times[0][0]
