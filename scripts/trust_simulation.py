"""How far to trust predicted times: the method of `tvmconv tune --simulate`, tried where it can be measured.

    scripts/trust_simulation.py measure mobilenet_v2:head TABLE.json     times candidates of a layer here
    scripts/trust_simulation.py predict TABLE.json                       predicts them
    scripts/trust_simulation.py report TABLE.json ...                    compares

Candidates are the defaults and random ones of the space for x86-64-v2, which has no AVX, so that unicorn
can run them. "rank" is Spearman's correlation of predicted and measured times, "regret" the measured time of
what is predicted to be best over that of what is best, "random" the mean time of all over it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tvmconv import hardware
from tvmconv.building import toolchain
from tvmconv.checking import oracle
from tvmconv.commands.show import tables
from tvmconv.measuring.places.here import Here
from tvmconv.measuring.process import libraries
from tvmconv.measuring.process.candidate import PACK, Built, Candidate
from tvmconv.measuring.process.compiling import Compilers
from tvmconv.measuring.simulate import cycles
from tvmconv.measuring.simulate.caches import Caches, Traffic
from tvmconv.problem import calling, workloads
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import arrays
from tvmconv.tuning.search import all_candidates, defaults

MACHINE = "x86-64-v2"
PROCESSOR = "sapphirerapids"  # LLVM's model of the machine that measures
Row = dict[str, Any]

# How cycles and the cycles of transfers make a time.
WAYS: Mapping[str, Callable[[float, float], float]] = {
    "no caches": lambda core, _moves: core,
    "the longer": max,
    "three tenths": lambda core, moves: max(core, moves) + 0.3 * min(core, moves),
    "the sum": lambda core, moves: core + moves,
}


def measure(layer: str, table: Path, count: int) -> None:
    """Time the defaults and random candidates of one layer, each beside the default."""
    workload, _, name = layer.partition(":")
    spec = next(each for each in workloads.resolve(workload).entries if each.name == name).spec
    machine, pack = hardware.find_machine(MACHINE)
    space = all_candidates(spec, machine, pack)
    draw = random.Random(spec.key)  # noqa: S311 - reproducible on purpose
    wanted = {each.identity: each for each in defaults(spec, machine, pack)}
    wanted |= {each.identity: each for each in draw.sample(space, min(count, len(space)))}
    with Here().open(machine) as measurer:
        roof = measurer.roof()
        (default,) = measurer.measure(spec, list(wanted.values())[:1])
        rest = measurer.measure(spec, list(wanted.values())[1:], math.inf, yardstick=default)
    lanes = machine.cpu.lanes("float32")
    # Three ports multiply or add; the roof's loops do one of each.
    hertz = roof.flops_per_second / (1.5 * 2 * lanes)
    speeds = [level.bytes_per_second / hertz for level in roof.bandwidths]
    rows = [
        {
            "schedule": t.candidate.schedule,
            "decisions": dict(t.candidate.decisions),
            "seconds": t.seconds,
        }
        for t in (default, *rest)
        if t.seconds
    ]
    table.write_text(
        json.dumps({"layer": layer, "key": spec.key, "speeds": speeds, "rows": rows}, indent=1)
    )
    print(f"{layer}: {len(rows)} of {len(wanted)} measured; bytes a cycle by level {speeds}")


def predict(table: Path) -> None:
    """Add cycles and traffic to a table's rows."""
    import x86_core

    content = json.loads(table.read_text())
    spec = ConvSpec.from_key(content["key"])
    machine, _ = hardware.find_machine(MACHINE)
    core = replace(machine.cpu, l1_bytes=48 << 10, l2_bytes=2 << 20)  # a Sapphire Rapids core
    here = replace(machine, core=core)
    runtime = str(toolchain.runtime_library())
    libraries.open_runtime(Path(runtime), 1)
    values = oracle.random_arguments(spec, seed=0)
    expected = oracle.conv(spec, **values)
    with tempfile.TemporaryDirectory() as folder:
        compilers = Compilers(machine, Path(folder), 1)
        todo = [row for row in content["rows"] if "cycles" not in row]
        candidates = [Candidate(row["schedule"], row["decisions"]) for row in todo]
        for row, built in zip(todo, compilers.compile(spec, candidates, shipped=True), strict=True):
            assert isinstance(built, Built)  # noqa: S101 - it has been measured
            called, out = _arguments(spec, built, values)
            core = x86_core.Core(runtime)
            _native(built.library, built.symbol, called)
            out[...] = np.nan
            traffic = core.call(built.library, built.symbol, called, Caches.of(here))
            oracle.assert_close(spec, expected, out)
            row["cycles"] = x86_core.predict(core.counted, PROCESSOR)
            row["second_level"], row["memory"] = traffic.second_level, traffic.memory
            table.write_text(json.dumps(content, indent=1))
        compilers.close()


def _arguments(
    spec: ConvSpec, built: Built, values: Mapping[str, Any]
) -> tuple[list[Any], np.ndarray[Any, Any]]:
    """What a kernel is called with, and the output among it."""
    signature = calling.signature(spec, built)
    given = {name: arrays.aligned_copy(array) for name, array in values.items()}
    if built.pack_library is not None:
        packed = arrays.empty(signature["filter"])
        _native(built.pack_library, PACK, [given["filter"], packed])
        given["filter"] = packed
    out = arrays.empty(signature["out"])
    return arrays.ordered(signature, {**given, "out": out}), out.reshape(spec.output_shape)


def _native(library: str, symbol: str, called: Sequence[Any]) -> None:
    import tvm_ffi

    tvm_ffi.load_module(library)[symbol](*(arrays.array_pointer(each) for each in called))


def report(files: Sequence[Path]) -> None:
    """One line a layer for each way of adding caches."""
    shown: list[tuple[object, ...]] = []
    sums: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    tables_read = [json.loads(file.read_text()) for file in files]
    # Of the second cache and of the third: medians, because the clock that they were divided by is measured.
    first, second = (statistics.median(each["speeds"][at] for each in tables_read) for at in (0, 1))
    machine, _ = hardware.find_machine(MACHINE)
    here = replace(
        machine,
        core=replace(machine.cpu, l2_bytes_per_cycle=first, memory_bytes_per_cycle=second),
    )
    for content in tables_read:
        rows = [row for row in content["rows"] if "cycles" in row]
        measured = [row["seconds"] for row in rows]
        cells: list[object] = [content["layer"], len(rows)]
        for way, combine in WAYS.items():
            moves = [cycles.transfers(Traffic(r["second_level"], r["memory"]), here) for r in rows]
            predicted = [
                combine(row["cycles"], move) for row, move in zip(rows, moves, strict=True)
            ]
            found = spearman(predicted, measured), regret(predicted, measured)
            sums[way].append(found)
            cells += [f"{found[0]:.2f}", f"{found[1]:.3f}"]
        best = min(measured)
        shown.append(
            (*cells, f"{measured[0] / best:.3f}", f"{statistics.mean(measured) / best:.2f}")
        )
    heads = [text for way in WAYS for text in (f"rank, {way}", "regret")]
    tables.show_table(("layer", "candidates", *heads, "default", "random"), shown)
    for way, found in sums.items():
        ranks, regrets = zip(*found, strict=True)
        mean = math.exp(statistics.mean(map(math.log, regrets)))
        print(f"{way}: mean rank {statistics.mean(ranks):.2f}, mean regret {mean:.3f}")


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Correlation of ranks; equal values share the mean of theirs."""
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered.index(v) + (ordered.count(v) - 1) / 2 for v in values]


def regret(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """Time of what is predicted to be best over the best time."""
    return measured[list(predicted).index(min(predicted))] / min(measured)


def main() -> None:
    """Do one step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("measure")
    step.add_argument("layer", metavar="WORKLOAD:LAYER")
    step.add_argument("table", type=Path)
    step.add_argument("--count", type=int, default=40)
    steps.add_parser("predict").add_argument("table", type=Path)
    steps.add_parser("report").add_argument("tables", type=Path, nargs="+")
    args = parser.parse_args()
    if args.step == "measure":
        measure(args.layer, args.table, args.count)
    elif args.step == "predict":
        predict(args.table)
    else:
        report(args.tables)


if __name__ == "__main__":
    main()
