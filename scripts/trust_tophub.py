"""How far to trust predicted times: TopHub's schedules for an RK3399's two Cortex-A72 against predictions.

    scripts/trust_tophub.py predict tophub_conv.csv TABLE.json     some tiles of 20 of its layers
    scripts/trust_tophub.py compare TABLE.json

TopHub's records (github.com/tlc-pack/tophub, arm_cpu, rk3399) have one schedule a layer, the best that was
measured, in another layout: NCHW, packed. Its tile is compared with ours of as many channels, and of as many
of its pixels as our registers hold: how far down the list of our tiles is that by prediction? And are layers
predicted to be slow that are slow there? The csv has columns model, task, N, C, H, W, O, kh, kw, s, pad,
GFLOPS and config.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from trust_simulation import WAYS, spearman

from tvmconv import hardware
from tvmconv.checking import oracle
from tvmconv.commands.show import tables
from tvmconv.hardware import Decisions, Machine, Schedule
from tvmconv.measuring.simulate import cycles, kernel
from tvmconv.measuring.simulate.caches import Caches, Traffic
from tvmconv.problem.spec import ConvSpec


def predict(source: Path, table: Path, count: int) -> None:
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


def compare(table: Path) -> None:
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
            speeds.append(layer["flops"] / best * machine.cpu.gigahertz)
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


def main() -> None:
    """Do one step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("predict")
    step.add_argument("source", type=Path)
    step.add_argument("table", type=Path)
    step.add_argument("--count", type=int, default=20)
    steps.add_parser("compare").add_argument("table", type=Path)
    args = parser.parse_args()
    if args.step == "predict":
        predict(args.source, args.table, args.count)
    else:
        compare(args.table)


if __name__ == "__main__":
    main()
