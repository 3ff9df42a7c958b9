"""Shows where the time of a whole model goes, call by call."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tvmconv import hardware
from tvmconv.commands.show import tables
from tvmconv.measuring.bench import models
from tvmconv.measuring.bench.models import Profile
from tvmconv.runtime import load


def profile(path: Path, threads: int, rounds: int, progress: tables.Progress) -> Profile:
    """Time each call of the compiled model at ``path``."""
    model = load(path, threads=threads)
    machine, _ = hardware.find_machine(model.variant.machine)
    return models.profile(model, machine, rounds, progress)


def as_json(made: Profile) -> dict[str, object]:
    """Everything in the profile as plain data."""
    return {
        **dataclasses.asdict(made),
        "sum_microseconds": made.sum_microseconds,
        "difference_percent": made.difference_percent,
        "kinds": {
            kind: {"calls": calls, "microseconds": time}
            for kind, (calls, time) in made.kinds().items()
        },
    }


def show(made: Profile) -> None:
    """Print the calls in their order, what kinds of them take together, and the sum beside the whole."""
    tables.show_table(
        ("call", "function", "us", "spread", "share %", "limit", "% of limit"),
        [
            (
                number,
                row.symbol,
                f"{row.microseconds:.2f}",
                f"{row.fastest:.2f}-{row.slowest:.2f}",
                f"{row.share:.1f}",
                row.limit,
                tables.percent(row.percent_limit),
            )
            for number, row in enumerate(made.rows)
        ],
    )
    for row in made.rows:
        if row.above:
            tables.show_note(tables.above(row.symbol, "its limit", row.above))
    print()
    tables.show_table(
        ("kind", "calls", "us", "share %"),
        [
            (kind, calls, f"{time:.1f}", f"{100 * time / made.sum_microseconds:.1f}")
            for kind, (calls, time) in made.kinds().items()
        ],
    )
    tables.show_facts(
        [
            ("machine", f"{made.machine}, {made.cpu}, threads: {made.threads}"),
            ("FMA peak", f"{made.roof.flops_per_second / 1e9:.1f} GFLOP/s (float32, registers)"),
            ("sum", f"{made.sum_microseconds:.1f} us of the calls, each repeated alone"),
            (
                "whole",
                f"{made.whole_microseconds:.1f} us, {made.difference_percent:+.1f} % of the sum",
            ),
        ]
    )
