"""The tables of `tvmconv bench`: kernels of a CPU beside its roof, and of a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvmconv.commands.show import tables

if TYPE_CHECKING:
    from tvmconv.measuring.bench.bench import Report
    from tvmconv.measuring.bench.gpu import Report as GpuReport

_COLUMNS = (
    "layer", "times", "us", "spread", "GFLOP/s", "GB/s", "% of FMA peak", "% if fed from L1",
    "% of bandwidth", "limit", "record",
)  # fmt: skip


def show_gpu_report(report: GpuReport) -> None:
    """Print the table of a GPU and the network's sum."""
    tables.show_table(
        (
            "layer",
            "times",
            "us",
            "spread",
            "GFLOP/s",
            "GB/s",
            "% of bandwidth",
            "schedule",
            "record",
        ),
        [
            (
                row.name,
                row.count,
                f"{row.microseconds:.1f}",
                f"{row.fastest:.1f}-{row.slowest:.1f}",
                f"{row.gflops:.0f}",
                f"{row.gbytes:.0f}",
                f"{row.percent_bandwidth:.0f}",
                row.schedule,
                row.source,
            )
            for row in report.rows
        ],
    )
    total = f"{report.total_microseconds / 1000:.3f} ms, each as often as it occurs"
    machine = f"{report.machine}, {report.device}, {report.cache} cache"
    tables.show_facts([("machine", machine), ("all layers", total)])


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
            (
                "machine",
                f"{report.machine}, {report.cpu}, threads: {report.threads}, {report.cache} cache",
            ),
            ("FMA peak", f"{report.roof.flops_per_second / 1e9:.1f} GFLOP/s (float32, registers)"),
            ("fed from L1", f"{report.roof.fed_flops_per_second / 1e9:.1f} GFLOP/s"),
            ("bandwidth", f"{levels} (copy, read plus written)"),
            (
                "all layers",
                f"{report.total_microseconds / 1000:.3f} ms, each as often as it occurs",
            ),
        ]
    )
