"""How far to trust predicted times: the method of `tvmconv tune --simulate`, tried where it can be measured.

    scripts/trust_simulation.py measure mobilenet_v2:head TABLE.json     times candidates of a layer here
    scripts/trust_simulation.py predict TABLE.json                       predicts them
    scripts/trust_simulation.py report TABLE.json ...                    compares
    scripts/trust_simulation.py tophub tophub_conv.csv TABLE.json        predicts layers of TopHub's rk3399
    scripts/trust_simulation.py ranks TABLE.json                         and compares

Candidates are the defaults and random ones of the space for x86-64-v2, which has no AVX, so that unicorn
can run them. "rank" is Spearman's correlation of predicted and measured times, "regret" the measured time of
what is predicted to be best over that of what is best, "random" the mean time of all over it.

TopHub's records (github.com/tlc-pack/tophub, arm_cpu, rk3399) have one schedule a layer, in another layout:
its tile is compared with ours of as many channels, and of as many of its pixels as our registers hold.
"""

from __future__ import annotations

import argparse
import csv
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

from tvmconv import hardware, oracle, tables, toolchain, workloads
from tvmconv.hardware import Decisions, Machine, Schedule
from tvmconv.runtime import arrays, tensors
from tvmconv.simulate import cycles, kernel
from tvmconv.simulate.caches import Caches, Traffic
from tvmconv.spec import ConvSpec
from tvmconv.tuning import running
from tvmconv.tuning.candidate import PACK, Built, Candidate
from tvmconv.tuning.compiling import Compilers
from tvmconv.tuning.measure import Measurer
from tvmconv.tuning.search import all_candidates, defaults

MACHINE = "x86-64-v2"
PROCESSOR = "sapphirerapids"  # LLVM's model of the machine that measures
Row = dict[str, Any]

# How cycles and the cycles of transfers make a time.
WAYS: Mapping[str, Callable[[float, float], float]] = {
    "no caches": lambda core, _moves: core,
    "the longer": max,
    "a tenth": lambda core, moves: max(core, moves) + min(core, moves) / 10,
    "a quarter": lambda core, moves: max(core, moves) + min(core, moves) / 4,
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
    with Measurer(machine) as measurer:
        roof = measurer.roof()
        (default,) = measurer.measure(spec, list(wanted.values())[:1])
        rest = measurer.measure(spec, list(wanted.values())[1:], math.inf, yardstick=default)
    lanes = machine.lanes("float32")
    hertz = roof.flops_per_second / (2 * lanes)  # a multiplication and an addition a cycle
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
    here = replace(machine, l1_bytes=48 << 10, l2_bytes=2 << 20)  # a Sapphire Rapids core
    runtime = str(toolchain.runtime_library())
    running.open_runtime(runtime, 1)
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
    weights = values["filter"]
    if built.pack_library is not None:
        packed = arrays.empty_aligned(built.packed_shape, tensors.numpy_dtype(built.packed_dtype))
        _native(built.pack_library, PACK, [weights, packed])
        weights = packed
    called = [arrays.aligned_copy(values["data"]), weights]
    called += [values[name] for name in ("bias", "residual") if name in values]
    out = arrays.empty_aligned(spec.output_shape, tensors.numpy_dtype(spec.out_dtype))
    return [*called, out], out


def _native(library: str, symbol: str, called: Sequence[Any]) -> None:
    import tvm_ffi

    tvm_ffi.load_module(library)[symbol](*(arrays.array_pointer(each) for each in called))


def report(files: Sequence[Path]) -> None:
    """One line a layer for each way of adding caches."""
    shown: list[tuple[object, ...]] = []
    sums: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for file in files:
        content = json.loads(file.read_text())
        rows = [row for row in content["rows"] if "cycles" in row]
        first, second = content["speeds"][:2]  # of the second cache and of the third
        here = replace(
            hardware.find_machine(MACHINE)[0],
            l2_bytes_per_cycle=first,
            memory_bytes_per_cycle=second,
        )
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


def tophub(source: Path, table: Path, count: int) -> None:
    """Predict some tiles of some layers that TopHub has for an RK3399; goes on where it stopped."""
    machine, pack = hardware.find_machine("rk3399")
    direct = hardware.find_schedule("arm.conv2d.direct", pack)
    draw = random.Random(0)  # noqa: S311 - reproducible on purpose
    with source.open() as stream:
        known = draw.sample([row for row in csv.DictReader(stream) if _is_small(row)], count)
    done = json.loads(table.read_text()) if table.exists() else []
    for row in known[len(done) :]:
        spec = _spec(row)
        base = direct.default(spec, machine)
        tiles = {
            (int(each["channels"]), int(each["pixels"])): each
            for each in hardware.space(direct, spec, machine)
            if all(each[k] == v for k, v in base.items() if k not in ("channels", "pixels"))
        }
        config = json.loads(row["config"])
        theirs = (config["tile_co"][-1], config["tile_oh"][-1] * config["tile_ow"][-1])
        default = (int(base["channels"]), int(base["pixels"]))
        wanted = {default, like(theirs, list(tiles)), *draw.sample(list(tiles), min(8, len(tiles)))}
        parts = [(*tile, *_parts(spec, machine, direct, tiles[tile])) for tile in sorted(wanted)]
        layer = f"{row['C']}x{row['H']} -> {row['O']}, {row['kh']}x{row['kh']}/{row['s']}"
        done.append(
            {"layer": layer, "gflops": float(row["GFLOPS"]), "flops": spec.flops, "theirs": theirs,
             "default": default, "tiles": parts}
        )  # fmt: skip
        table.write_text(json.dumps(done))
        print(layer, len(parts), flush=True)


def _parts(
    spec: ConvSpec, machine: Machine, schedule: Schedule, decisions: Decisions
) -> tuple[float, float, float]:
    """Cycles of computing, bytes between the caches, bytes of memory."""
    function = schedule.apply(spec, machine, decisions)
    content = kernel.object_file(function, machine)
    arguments = oracle.random_arguments(spec, seed=0)
    counts, _ = kernel.run(content, spec, function, arguments, Caches.of(machine))
    traffic = counts.traffic or Traffic()
    return cycles.predict(counts, machine), traffic.second_level, traffic.memory


def like(theirs: tuple[int, int], tiles: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Our tile of as many channels, or nearly, and of as many of the pixels as there are."""
    width = min(tiles, key=lambda tile: abs(tile[0] - theirs[0]))[0]
    wide = [tile for tile in tiles if tile[0] == width]
    return max((t for t in wide if t[1] <= theirs[1]), key=lambda t: t[1], default=min(wide))


def _is_small(row: Mapping[str, str]) -> bool:
    wanted = row["model"] == "rk3399" and row["task"].startswith("conv2d_nchw_spatial")
    return wanted and _spec(row).macs < 15e6


def _spec(row: Mapping[str, str]) -> ConvSpec:
    size, kernel, pad = int(row["H"]), int(row["kh"]), int(row["pad"])
    shape = (int(row["N"]), size, int(row["W"]), int(row["C"]))
    padding = [[0, 0], [pad, pad], [pad, pad], [0, 0]]
    filters = (kernel, int(row["kw"]), int(row["C"]), int(row["O"]))
    return ConvSpec.conv2d(shape, filters, strides=int(row["s"]), padding=padding)


def ranks(table: Path) -> None:
    """Where TopHub's tiles stand among ours, and whether layers slow there are predicted to be slow."""
    machine, _ = hardware.find_machine("rk3399")
    content = json.loads(table.read_text())
    measured = [layer["gflops"] for layer in content]
    for way, combine in WAYS.items():
        shown, places, losses, speeds = [], [], [], []
        for layer in content:
            times = {
                (width, pixels): combine(core, cycles.transfers(Traffic(second, memory), machine))
                for width, pixels, core, second, memory in layer["tiles"]
            }
            tile = like(tuple(layer["theirs"]), list(times))
            order, best = sorted(times.values()), min(times.values())
            places.append(order.index(times[tile]) / (len(order) - 1))
            losses.append(times[tile] / best)
            speeds.append(layer["flops"] / best * machine.gigahertz)
            shown.append(
                (layer["layer"], "{1} x {0}".format(*layer["theirs"]), "{1} x {0}".format(*tile),
                 f"{order.index(times[tile]) + 1} of {len(order)}", f"{losses[-1]:.3f}",
                 f"{times[tuple(layer['default'])] / best:.3f}", f"{order[-1] / best:.2f}",
                 f"{layer['gflops']:.1f}", f"{speeds[-1]:.1f}")
            )  # fmt: skip
        heads = ("layer", "TopHub's tile", "ours like it", "place", "over best", "default", "worst")
        print(f"\n{way}")
        tables.show_table((*heads, "measured GFLOP/s, 2 cores", "predicted best, 1 core"), shown)
        print(
            f"TopHub's tiles: {statistics.mean(places):.2f} of the way down the list on average, "
            f"{statistics.mean(losses):.3f} times the best predicted; speeds of the {len(shown)} layers: "
            f"rank correlation {spearman(speeds, measured):.2f}"
        )


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
    step = steps.add_parser("tophub")
    step.add_argument("source", type=Path)
    step.add_argument("table", type=Path)
    step.add_argument("--count", type=int, default=16)
    steps.add_parser("ranks").add_argument("table", type=Path)
    args = parser.parse_args()
    if args.step == "measure":
        measure(args.layer, args.table, args.count)
    elif args.step == "predict":
        predict(args.table)
    elif args.step == "tophub":
        tophub(args.source, args.table, args.count)
    elif args.step == "ranks":
        ranks(args.table)
    else:
        report(args.tables)


if __name__ == "__main__":
    main()
