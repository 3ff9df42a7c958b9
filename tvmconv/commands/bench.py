"""Time kernels, each beside the roof measured in the same round on the same machine.

The roof is what this machine can do at most: multiply-adds a second from a loop in registers, and bytes
a second from a copy with a working set of the layer's size. Values are checked against the oracle first.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tvmconv import host, tables, workloads
from tvmconv.commands import arguments

if TYPE_CHECKING:
    from tvmconv.bench import Report

_COLUMNS = (
    "layer", "times", "us", "spread", "GFLOP/s", "GB/s", "% of FMA peak", "% if fed from L1",
    "% of bandwidth", "limit", "record",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add WORKLOAD and options."""
    arguments.add_workload(parser)
    arguments.add_machine(parser)
    arguments.add_logs(parser)
    parser.add_argument(
        "--bundle", metavar="PATH", help="time this bundle's kernels, build nothing"
    )
    parser.add_argument(
        "--threads", type=arguments.positive, default=1, help="of a call (default: 1)"
    )
    parser.add_argument("--rounds", type=arguments.positive, default=7, help="default: 7")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too, - for stdout")


def run(args: argparse.Namespace) -> int:
    """Build unless told not to, time, print."""
    workload = workloads.resolve(args.workload)
    with tempfile.TemporaryDirectory(prefix="tvmconv-bench-") as scratch, tables.progress() as show:
        path = Path(args.bundle) if args.bundle else Path(scratch) / "bench.tvmconv"
        if not args.bundle:
            from tvmconv.builder import build

            build(
                [e.spec for e in workload.entries], args.machine, path, arguments.logs(args), show
            )
        report = bench_bundle(path, workload, args.threads, args.rounds, show)
    if args.json == "-":
        tables.show_json(as_json(report))
        return 0
    if args.json:
        Path(args.json).write_text(json.dumps(as_json(report), indent=1) + "\n", encoding="utf-8")
    show_report(report)
    return 0


def bench_bundle(
    path: Path, workload: workloads.Workload, threads: int, rounds: int, show: tables.Progress
) -> Report:
    """Time the kernels of ``workload`` in the bundle at ``path``."""
    from tvmconv import hardware
    from tvmconv.bench import bench
    from tvmconv.runtime import load

    library = load(path, threads=threads)
    machine, _ = hardware.find_machine(library.variant.machine)
    return bench(library, workload.entries, machine, rounds, show)


def show_report(report: Report) -> None:
    """Print the table and, below it, the roof and the network's sum."""
    rows = [
        (
            row.name,
            row.count,
            f"{row.microseconds:.1f}",
            f"{row.fastest:.1f}-{row.slowest:.1f}",
            f"{row.gflops:.1f}",
            f"{row.gbytes:.1f}",
            f"{row.percent_peak:.0f}",
            f"{row.percent_fed:.0f}",
            f"{row.percent_bandwidth:.0f}",
            row.limit,
            row.source,
        )
        for row in report.rows
    ]
    tables.show_table(_COLUMNS, rows)
    levels = ", ".join(
        f"{level.bytes_per_second / 1e9:.1f} GB/s up to {level.working_set / 2**20:g} MiB"
        for level in report.roof.bandwidths
    )
    tables.show_facts(
        [
            ("machine", f"{report.machine}, {host.cpu_name()}, threads: {report.threads}"),
            ("FMA peak", f"{report.roof.flops_per_second / 1e9:.1f} GFLOP/s (float32, registers)"),
            ("fed from L1", f"{report.roof.fed_flops_per_second / 1e9:.1f} GFLOP/s"),
            ("bandwidth", f"{levels} (copy, read plus written)"),
            (
                "all layers",
                f"{report.total_microseconds / 1000:.3f} ms, each as often as it occurs",
            ),
        ]
    )


def as_json(report: Report) -> dict[str, object]:
    """Return everything in the report as plain data."""
    return {
        **dataclasses.asdict(report),
        "cpu": host.cpu_name(),
        "total_microseconds": report.total_microseconds,
    }
