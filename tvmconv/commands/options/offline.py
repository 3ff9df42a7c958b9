"""``tvmconv tune --export`` and ``--import``: for machines without a network, or behind a job queue."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tvmconv.commands.options import arguments
from tvmconv.commands.show import tables, watch

if TYPE_CHECKING:
    from tvmconv.tuning.plan import Plan
    from tvmconv.tuning.progress import Session

_BATCH = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--export``, ``--import`` and ``--batch``."""
    parser.add_argument(
        "--export",
        metavar="TAR",
        help="measure nothing here: write built candidates to TAR, for `tvmconv measure` elsewhere",
    )
    parser.add_argument(
        "--import",
        dest="results",
        metavar="FILE",
        help="learn from what `tvmconv measure` wrote; with --export, then write the next candidates",
    )
    parser.add_argument(
        "--batch",
        metavar="N",
        type=arguments.positive,
        help=f"candidates of a layer in one TAR (default: {_BATCH})",
    )


def wanted(args: argparse.Namespace) -> bool:
    """Whether candidates are measured elsewhere; ValueError for options that do not go with that."""
    away = bool(args.export or args.results)
    if args.batch and not args.export:
        raise ValueError("--batch says how much --export writes: give --export TAR too")
    if away and args.minutes:
        raise ValueError(
            "--minutes counts time measured here: with --export and --import give --trials"
        )
    if args.results and args.again:
        raise ValueError("--again would forget what --import learns: give one of them")
    return away


def exchange(args: argparse.Namespace, work: Plan) -> Session:
    """Learn from results, write the next batch, or both in this order; say what came of it."""
    from tvmconv.tuning import offline
    from tvmconv.tuning.progress import Session

    session = Session(work)
    if args.results:
        with watch.watcher() as watcher:
            session = offline.learn(work, Path(args.results), watcher)
        records = sum(outcome.record is not None for outcome in session.outcomes)
        unfinished = sum(
            state.outcome is None and bool(state.search.trials) for state in session.states
        )
        tables.show_note(
            f"learnt from {args.results}: {records} of {len(session.outcomes)} layers beat the default and "
            f"are recorded in {work.directory / work.machine.name}"
            + (f"; {unfinished} layers have no comparison yet" if unfinished else "")
        )
    if args.export:
        _export(args, work)
    return session


def _export(args: argparse.Namespace, work: Plan) -> None:
    from tvmconv.tuning import offline

    file = Path(args.export)
    with tables.progress() as report:
        exported = offline.export(work, file, args.batch or _BATCH, report)
    batch, failures = exported.batch, exported.failures
    if failures:
        tables.show_note(
            f"{len(failures)} candidates cannot be compiled, such as: {failures[0].error}"
        )
    if batch is None:
        tables.show_note(
            "nothing is left to measure: every search has ended. More --trials go on, --again starts anew; "
            f"{file} is not written"
        )
        return
    todo = sum(kernel.seconds is None for layer in batch.layers for kernel in layer.kernels)
    tables.show_note(
        f"{file}: {todo} candidates of {len(batch.layers)} layers for {work.machine.name}, "
        f"{file.stat().st_size / 1e6:.1f} MB. There: tvmconv measure {file.name}"
    )
