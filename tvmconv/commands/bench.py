"""Time kernels, each beside the roof measured in the same round on the same machine.

The roof is what this machine can do at most: multiply-adds a second from a loop in registers, and bytes
a second from a copy with a working set of the layer's size. Values are checked against the oracle first.

Kernels for a GPU are timed on the first GPU, replayed from a CUDA graph, beside the bandwidth in the card's
facts; scripts/cuda_kit compares them with PyTorch's. With --cache cold their launches take copies of the
layer's tensors in turn, so many that none is in L2 when its turn comes.

With --peers the layers, without their epilogues, are timed in turn with other libraries, each in a
process of its own and through its Python interface.

Of a whole model (a .tflite or .onnx file, or a directory made by tvmconv compile) calls are timed; with
--peers in turn with LiteRT, ONNX Runtime, OpenVINO, MNN, ncnn or PyTorch, whose values are compared with
ours first. With --profile each call of the model's program is timed alone, in the program's order and on its
own arrays. With --report both are put on one page, with the roofline and the arena over time.

With --rpc-tracker a board of the key (`tvmconv board`) does the timing. Every kernel's values are checked
there; a CPU's roof is the higher of two looks, before all layers and behind them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tvmconv import writing
from tvmconv.bundle import manifest
from tvmconv.commands.options import arguments, models, rpc
from tvmconv.commands.show import layers, tables
from tvmconv.problem import workloads

if TYPE_CHECKING:
    from tvmconv.measuring.bench.rows import CpuReport, Report
    from tvmconv.measuring.places.boards import Boards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add WORKLOAD and options."""
    parser.add_argument(
        "workload",
        metavar="WORKLOAD",
        help=f"{models.MODEL_OR_WORKLOAD}; or a directory made by tvmconv compile",
    )
    arguments.add_machine(parser)
    models.add_input_shape(parser)
    arguments.add_logs(parser)
    arguments.add_winograd(parser)
    parser.add_argument(
        "--bundle", metavar="PATH", help="time this bundle's kernels, build nothing"
    )
    parser.add_argument(
        "--threads", type=arguments.positive, default=1, help="of a call (default: 1)"
    )
    arguments.add_cache(parser)
    parser.add_argument("--rounds", type=arguments.positive, default=7, help="default: 7")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too, - for stdout")
    parser.add_argument(
        "--peers",
        metavar="LIBRARY[,..]",
        help="time these libraries too: xnnpack, onednn, onnxruntime, openvino, tensorflow, ncnn, or all; "
        "beside a model litert, onnxruntime, openvino, mnn, ncnn, torch, or all",
    )
    parser.add_argument(
        "--picture", metavar="FILE", help="with --peers: draw it too (PNG or SVG; needs matplotlib)"
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="of a model: time each call of its program alone, on its own arrays, and what limits it",
    )
    parser.add_argument(
        "--report",
        metavar="FILE.html",
        help="of a model: race and profile on one page, with the roofline and the arena over time",
    )
    rpc.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Build unless told not to, time, print."""
    boards = rpc.boards(args)
    if boards and (args.peers or args.bundle):
        raise ValueError(
            f"{'--peers' if args.peers else '--bundle'} is for this machine: over RPC a board times our "
            "own kernels, built for it here. Leave it out, or leave out --rpc-tracker."
        )
    if models.is_file(args.workload) or Path(args.workload).is_dir():
        return _run_model(args)
    if args.input_shape:
        raise ValueError(f"--input-shape is for a model, and {args.workload} is none")
    if args.profile or args.report:
        raise ValueError(
            f"--{'profile' if args.profile else 'report'} is for a whole model: name a .tflite or .onnx "
            "file, or one compiled"
        )
    if args.peers:
        if args.cache != "warm":
            raise ValueError("--peers compares with warm caches: leave out --cache")
        return _run_peers(args)
    if args.picture:
        raise ValueError("--picture draws the comparison with other libraries: add --peers all")
    workload = workloads.resolve(args.workload)
    timed = _bench_on_board(args, workload, boards) if boards else _bench_here(args, workload)
    if not _wrote_to_stdout(args.json, timed.figures):
        timed.show()
    return 0


def _run_model(args: argparse.Namespace) -> int:
    if args.rpc_tracker or args.picture or args.cache != "warm":
        raise ValueError(
            "--rpc-tracker, --picture and --cache are for layers, not for a whole model"
        )
    from tvmconv.commands.models import bench as whole

    timed = whole.run(args)
    if not _wrote_to_stdout(args.json, timed.figures):
        timed.show()
    return 0


@dataclasses.dataclass(frozen=True)
class _Timed:
    """What the JSON file holds, and what prints the table."""

    figures: dict[str, object]
    show: Callable[[], None]


def _timed(report: Report) -> _Timed:
    return _Timed(as_json(report), lambda: layers.show(report))


def _bench_here(args: argparse.Namespace, workload: workloads.Workload) -> _Timed:
    arguments.check_threads(args.threads)
    with writing.scratch("tvmconv-bench-") as scratch, tables.progress() as show:
        path = Path(args.bundle) if args.bundle else scratch / "bench.tvmconv"
        if not args.bundle:
            from tvmconv.building.builder import build

            _require_gpu(args.machine)
            specs = [entry.spec for entry in workload.entries]
            build(specs, args.machine, path, arguments.logs(args), show, args.winograd)
        if _is_for_gpu(path):
            return _bench_gpu(path, workload, args, show)
        return _timed(bench_bundle(path, workload, args.threads, args.rounds, show, args.cache))


def _require_gpu(name: str) -> None:
    """Refuse to build for a GPU where there is none."""
    from tvmconv import hardware
    from tvmconv.runtime.cuda import opening

    machine, _ = hardware.find_machine(name)
    if machine.gpu is not None:
        opening.find_device(0)


def _bench_on_board(
    args: argparse.Namespace, workload: workloads.Workload, boards: Boards
) -> _Timed:
    from tvmconv.measuring.bench import boards as remote_bench

    chosen = arguments.logs(args)
    with tables.progress() as show:
        report = remote_bench.bench(
            workload.entries,
            args.machine,
            boards,
            args.threads,
            args.rounds,
            show,
            None if chosen is None else [Path(folder) for folder in chosen],
            args.winograd,
            args.cache,
        )
    return _timed(report)


def _is_for_gpu(path: Path) -> bool:
    """Whether a bundle has nothing but kernels for GPUs; one with others is timed on the CPU."""
    return all(variant.gpu for variant in manifest.read_manifest(path).variants)


def _bench_gpu(
    path: Path, workload: workloads.Workload, args: argparse.Namespace, show: tables.Progress
) -> _Timed:
    from tvmconv import hardware
    from tvmconv.measuring.bench import gpu as gpu_bench
    from tvmconv.runtime import load

    library = load(path, device="cuda")
    machine, _ = hardware.find_machine(library.variant.machine)
    return _timed(
        gpu_bench.bench(library, workload.entries, machine, args.rounds, show, args.cache)
    )


def _run_peers(args: argparse.Namespace) -> int:
    """Build the layers without epilogues, race, print, draw."""
    from tvmconv.building.builder import build
    from tvmconv.commands.show import peers, picture
    from tvmconv.measuring.peers import race

    if args.bundle:
        raise ValueError(
            "--peers times layers without epilogue: it builds its own, leave out --bundle"
        )
    libraries = peers.names(args.peers)
    if args.picture:
        picture.require()
    plain = race.plain_layers(workloads.resolve(args.workload).entries)
    with writing.scratch("tvmconv-bench-") as scratch, tables.progress() as show:
        path = scratch / "bench.tvmconv"
        specs = [layer.spec for layer in plain]
        build(specs, args.machine, path, arguments.logs(args), show, args.winograd)
        raced = race.race(plain, str(path), libraries, args.threads, args.rounds, show)
    if args.picture:
        from tvmconv.commands.show import peers_picture

        peers_picture.draw(raced, args.workload, args.picture)
    if not _wrote_to_stdout(args.json, peers.as_json(raced)):
        peers.show(raced)
    return 0


def _wrote_to_stdout(target: str | None, figures: dict[str, object]) -> bool:
    """Write figures to a file, if one is named; true where they are the whole output."""
    if target == "-":
        tables.show_json(figures)
    elif target:
        Path(target).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return target == "-"


def bench_bundle(
    path: Path,
    workload: workloads.Workload,
    threads: int,
    rounds: int,
    show: tables.Progress,
    cache: str = "warm",
) -> CpuReport:
    """Time the kernels of ``workload`` in the bundle at ``path``."""
    from tvmconv import hardware
    from tvmconv.measuring.bench.bench import bench
    from tvmconv.runtime import load

    library = load(path, threads=threads)
    machine, _ = hardware.find_machine(library.variant.machine)
    return bench(library, workload.entries, machine, rounds, show, cache)


def as_json(report: Report) -> dict[str, object]:
    """Return everything in the report as plain data."""
    return {
        **dataclasses.asdict(report),
        "total_microseconds": report.total_microseconds,
    }
