"""Search the fastest schedule for each layer on this machine, and record what beats the default.

Every candidate's values are checked against the oracle. Records go to --output, one line per layer, and
`tvmconv build` uses them from then on. Ctrl-C keeps what was found so far.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvmconv import tables, workloads
from tvmconv.commands import arguments

if TYPE_CHECKING:
    from tvmconv.tuning.search import Outcome, Progress
    from tvmconv.tuning.session import Plan
    from tvmconv.workloads import Layer

_TRIALS = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add WORKLOAD and options."""
    arguments.add_workload(parser)
    arguments.add_machine(parser)
    parser.add_argument(
        "--trials",
        type=arguments.positive,
        default=_TRIALS,
        help=f"most per layer (default: {_TRIALS})",
    )
    parser.add_argument(
        "--minutes",
        type=arguments.positive_float,
        help="for all layers together (default: no limit)",
    )
    parser.add_argument(
        "--threads", type=arguments.positive, default=1, help="of a call (default: 1)"
    )
    parser.add_argument("--layers", metavar="NAME,..", help="only these layers of the workload")
    parser.add_argument(
        "--output", metavar="DIR", help="where records go (default: your own directory)"
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(args: argparse.Namespace) -> int:
    """Plan, tune with a live display, sum up."""
    from tvmconv.tuning import log, session

    layers = selected(workloads.resolve(args.workload).entries, args.layers)
    directory = Path(args.output) if args.output else log.user_directory()
    work = session.plan(layers, args.machine, args.trials, args.minutes, directory, args.threads)
    result = tune(work)
    if args.json:
        tables.show_json([_as_json(outcome) for outcome in result.outcomes])
    else:
        _summary(work, result)
    return 130 if result.interrupted else 0


def selected(layers: tuple[Layer, ...], names: str | None) -> tuple[Layer, ...]:
    """Return the layers of these comma-separated names, or all; an unknown name is a ValueError."""
    if names is None:
        return layers
    wanted = names.split(",")
    known = {layer.name: layer for layer in layers}
    for name in wanted:
        if name not in known:
            from tvmconv.hardware import unknown

            raise ValueError(unknown("layer", name, known))
    return tuple(known[name] for name in wanted)


def tune(work: Plan) -> Any:
    """Run a session with one line a layer: live on a terminal, when it is done elsewhere."""
    from tvmconv.tuning import session

    print(
        f"tuning {len(work.layers)} layers for {work.machine.name}, at most {work.trials} candidates "
        f"each, about {work.estimated_seconds / 60:.1f} minutes; records go to {work.directory}",
        file=sys.stderr,
    )
    with _display(work) as display:
        return session.run(work, display.report, display.finished)


class _Plain:
    """One line per finished layer, and the first distinct errors in full."""

    def __init__(self, work: Plan) -> None:
        self.work, self.number, self.errors = work, 0, set[str]()

    def report(self, layer: Layer, progress: Progress) -> None:
        error = progress.first_error
        if error and error not in self.errors:
            self.errors.add(error)
            self.show_error(f"{layer.name}: a candidate failed: {error}")

    def finished(self, layer: Layer, outcome: Outcome) -> None:
        self.number += 1
        self.show(f"[{self.number}/{len(self.work.layers)}] {_line(layer, outcome)}")

    def show(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    show_error = show


class _Live(_Plain):
    """The same lines, and below them the layer at work."""

    def __init__(self, work: Plan, progress: Any) -> None:
        super().__init__(work)
        self.bar, self.started = progress, time.monotonic()
        self.task = progress.add_task("", total=None)

    def report(self, layer: Layer, progress: Progress) -> None:
        super().report(layer, progress)
        spent = time.monotonic() - self.started
        left = max(0.0, self.work.estimated_seconds - spent)
        self.bar.update(
            self.task,
            description=f"{layer.name}: {_best(layer, progress)}, {progress.trials} trials, "
            f"{progress.failures} failed, {self.number}/{len(self.work.layers)} layers done, "
            f"{left / 60:.1f} min left",
        )

    def show(self, text: str) -> None:
        from rich.text import Text

        self.bar.console.print(Text(text))

    show_error = show


@contextmanager
def _display(work: Plan) -> Iterator[_Plain]:
    if not tables.is_rich(sys.stderr):
        yield _Plain(work)
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Live(work, progress)


def _best(layer: Layer, progress: Progress) -> str:
    if progress.best_seconds is None:
        return "nothing measured yet"
    text = f"best {layer.spec.flops / progress.best_seconds / 1e9:.1f} GFLOP/s"
    if progress.default_seconds is not None:
        text += f" ({progress.default_seconds / progress.best_seconds:.2f} x the default)"
    return text


def _line(layer: Layer, outcome: Outcome) -> str:
    trials = f"{len(outcome.measurements)} trials"
    failed = sum(m.error is not None for m in outcome.measurements)
    failures = f", {failed} failed" if failed else ""
    record = outcome.record
    if record is None:
        return f"{layer.name}: no record, {outcome.reason}; {trials}{failures}"
    return (
        f"{layer.name}: {record.microseconds:.1f} us, "
        f"{layer.spec.flops / record.microseconds / 1e3:.1f} GFLOP/s, "
        f"{record.default_microseconds / record.microseconds:.2f} x the default; {trials}{failures}"
    )


def _summary(work: Plan, result: Any) -> None:
    written = [outcome.record for outcome in result.outcomes if outcome.record is not None]
    state = "interrupted after" if result.interrupted else "tuned"
    print(
        f"{state} {len(result.outcomes)} of {len(work.layers)} layers; {len(written)} beat the default "
        f"and are recorded in {work.directory / work.machine.name}"
    )
    if result.interrupted:
        print("run the same command again to go on; recorded layers start from their records")


def _as_json(outcome: Outcome) -> dict[str, object]:
    return {
        "key": outcome.spec.key,
        "trials": len(outcome.measurements),
        "failures": sum(m.error is not None for m in outcome.measurements),
        "reason": outcome.reason,
        "record": dataclasses.asdict(outcome.record) if outcome.record else None,
    }
