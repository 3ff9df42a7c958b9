"""The tables of `tvmconv bench`: kernels of a CPU beside its roof, and of a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvmconv.commands.show import tables

if TYPE_CHECKING:
    from tvmconv.measuring.bench.rows import CpuReport, GpuReport, Report, Row

_TIMES = ("layer", "times", "us", "spread", "GFLOP/s", "GB/s")
_CPU_COLUMNS = ("% of FMA peak", "% if fed from L1", "% of bandwidth", "limit", "record")
_GPU_COLUMNS = ("% of bandwidth", "schedule", "record")

_ROOFS = {
    "peak": "the FMA peak",
    "fed": "multiply-adds fed from L1",
    "bandwidth": "memory",
}


def show(report: Report) -> None:
    """Print the table and, below it, the network's sum; of a CPU also its roof."""
    from tvmconv.measuring.bench.rows import CpuReport, GpuReport

    if isinstance(report, CpuReport):
        _show_cpu(report)
    elif isinstance(report, GpuReport):
        _show_gpu(report)


def _show_gpu(report: GpuReport) -> None:
    rows = [
        (*_times(row, 0), tables.percent(row.percent_bandwidth), row.schedule, row.source)
        for row in report.rows
    ]
    tables.show_table((*_TIMES, *_GPU_COLUMNS), rows)
    _say_what_is_above(report)
    machine = f"{report.machine}, {report.device}, {report.cache} cache"
    tables.show_facts([("machine", machine), _total(report)])


def _show_cpu(report: CpuReport) -> None:
    rows = [
        (
            *_times(row, 1),
            tables.percent(row.percent_peak),
            tables.percent(row.percent_fed),
            tables.percent(row.percent_bandwidth),
            row.limit,
            row.source,
        )
        for row in report.rows
    ]
    tables.show_table((*_TIMES, *_CPU_COLUMNS), rows)
    _say_what_is_above(report)
    levels = ", ".join(
        f"{level.bytes_per_second / 1e9:.1f} GB/s up to {level.working_set / 2**20:g} MiB"
        for level in report.roof.bandwidths
    )
    machine = f"{report.machine}, {report.cpu}, threads: {report.threads}, {report.cache} cache"
    tables.show_facts(
        [
            ("machine", machine),
            ("FMA peak", f"{report.roof.flops_per_second / 1e9:.1f} GFLOP/s (float32, registers)"),
            ("fed from L1", f"{report.roof.fed_flops_per_second / 1e9:.1f} GFLOP/s"),
            ("bandwidth", f"{levels} (copy, read plus written)"),
            _total(report),
        ]
    )


def _times(row: Row, digits: int) -> tuple[object, ...]:
    return (
        row.name,
        row.count,
        f"{row.microseconds:.1f}",
        f"{row.fastest:.1f}-{row.slowest:.1f}",
        f"{row.gflops:.{digits}f}",
        f"{row.gbytes:.{digits}f}",
    )


def _total(report: Report) -> tuple[str, str]:
    return "all layers", f"{report.total_microseconds / 1000:.3f} ms, each as often as it occurs"


def _say_what_is_above(report: Report) -> None:
    for row in report.rows:
        for name, times in row.above.items():
            tables.show_note(tables.above(row.name, _ROOFS[name], times))
