"""Search the fastest schedule for each layer, and record what beats the default.

Candidates are measured on this machine, its CPU or its GPU; or elsewhere, with --export, `tvmconv measure`
and --import, or on boards, with --rpc-tracker; or their times are predicted, with --simulate.

Of a model, a .tflite or .onnx file, exactly the convolutions are tuned that `tvmconv compile` compiles, the
time shared by how often each occurs.

Every candidate's values are checked against the oracle. Records go to --output, one line per layer, and
`tvmconv build` and `compile` use them from then on. Every trial is written down at once: after Ctrl-C, or a
power cut, the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tvmconv.commands.options import arguments, models, offline, rpc
from tvmconv.commands.show import tables, watch

if TYPE_CHECKING:
    from tvmconv.measuring.places.place import Place
    from tvmconv.measuring.process.runner import Conditions
    from tvmconv.problem.workloads import Layer
    from tvmconv.tuning.conclude import Outcome
    from tvmconv.tuning.plan import Plan
    from tvmconv.tuning.progress import Session

_TRIALS = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add WORKLOAD and options."""
    parser.add_argument("workload", metavar="WORKLOAD", help=models.MODEL_OR_WORKLOAD)
    arguments.add_machine(parser)
    models.add_input_shape(parser)
    parser.add_argument(
        "--trials",
        type=arguments.positive,
        help="most per layer, those of earlier runs included "
        f"(default: {_TRIALS}, or no limit with --minutes)",
    )
    parser.add_argument(
        "--minutes",
        type=arguments.positive_float,
        help="for all layers together, shared by what each can still gain (default: no limit)",
    )
    parser.add_argument(
        "--patience",
        metavar="BATCHES",
        type=arguments.positive,
        default=5,
        help="end a layer's search after so many batches of 16 without a gain (default: 5)",
    )
    parser.add_argument(
        "--threads", type=arguments.positive, default=1, help="of a call (default: 1)"
    )
    arguments.add_cache(parser)
    parser.add_argument("--layers", metavar="NAME,..", help="only these layers of the workload")
    parser.add_argument(
        "--output", metavar="DIR", help="where records go (default: your own directory)"
    )
    parser.add_argument("--again", action="store_true", help="forget earlier trials, start anew")
    parser.add_argument(
        "--list", action="store_true", help="show what is tuned, stale or missing; tune nothing"
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write progress curves to FILE, .html, .png or .svg; with --list, of earlier runs",
    )
    parser.add_argument(
        "--simulate",
        action="store_true",
        help="measure nothing: run candidates in an emulated core and predict their time, for ARM machines "
        "(needs unicorn and llvm-mca; a measured record always wins over one made so)",
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    offline.add_arguments(parser)
    rpc.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Plan, tune with a live display, sum up."""
    from tvmconv.measuring.process.runner import Conditions
    from tvmconv.records import log
    from tvmconv.tuning import plan

    if args.report:
        from tvmconv.commands.show import report

        report.check(args.report)
    layers = selected(
        models.workload(args.workload, models.input_shapes(args)).entries, args.layers
    )
    directory = Path(args.output) if args.output else log.user_directory()
    conditions = Conditions(args.threads, args.cache)
    if args.list:
        return show_list(args, layers, directory, conditions)
    away = offline.wanted(args)
    if away and args.rpc_tracker:
        raise ValueError(
            "--rpc-tracker measures now, --export and --import elsewhere: give one of them"
        )
    if args.simulate:
        _check_simulated(args, away)
    if not away and not args.rpc_tracker:  # else the machine that measures knows its cores
        arguments.check_threads(args.threads)
    trials = args.trials or (None if args.minutes else _TRIALS)
    work = plan.plan(
        layers,
        args.machine,
        trials,
        args.minutes,
        directory,
        conditions,
        args.again,
        args.patience,
        _place(args, away),
    )
    result = offline.exchange(args, work) if away else tune(work)
    if args.json:
        tables.show_json([_as_json(outcome) for outcome in result.outcomes])
    elif not away:
        _summary(work, result)
    if args.report:
        report.write(args.report, report.from_session(result))
        print(f"report: {args.report}", file=sys.stderr)
    return 130 if result.interrupted else 0


def _check_simulated(args: argparse.Namespace, away: bool) -> None:
    if away or args.rpc_tracker:
        raise ValueError(
            "--simulate predicts, --rpc-tracker, --export and --import measure: give one of them"
        )
    if args.threads != 1 or args.cache != "warm":
        raise ValueError(
            f"--simulate knows one thread and a warm cache, not --threads {args.threads} --cache "
            f"{args.cache}: leave both out"
        )


def _place(args: argparse.Namespace, away: bool) -> Place:
    """Where candidates are measured."""
    from tvmconv.measuring.places.here import Here
    from tvmconv.measuring.places.offline import Offline
    from tvmconv.measuring.places.simulated import Simulated

    if args.simulate:
        return Simulated()
    return Offline() if away else rpc.boards(args) or Here()


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


def tune(work: Plan) -> Session:
    """Run a session with one line a layer: live on a terminal, when it is done elsewhere."""
    from tvmconv.tuning import session

    each = "as many candidates as there is time for"
    if work.trials is not None:
        each = f"at most {work.trials} candidates each"
    print(
        f"tuning {len(work.layers)} layers for {work.machine.name}, {each}, at most about "
        f"{watch.left(work.estimated_seconds)}; records go to {work.directory}",
        file=sys.stderr,
    )
    with watch.watcher() as watcher:
        return session.run(work, watcher)


def show_list(
    args: argparse.Namespace, layers: tuple[Layer, ...], directory: Path, conditions: Conditions
) -> int:
    """Print where each layer stands, for `build`'s order of directories with --output before them."""
    from tvmconv import hardware
    from tvmconv.records import log
    from tvmconv.tuning import plan, status

    machine, pack = hardware.find_machine(args.machine)
    directories = list(dict.fromkeys([directory, *log.default_directories()]))
    journals = plan.all_journals(directory, machine, conditions)
    rows = status.status(layers, machine, pack, directories, journals)
    if args.json:
        tables.show_json([dataclasses.asdict(row) for row in rows])
    else:
        columns = ("layer", "state", "gain", "trials", "date", "record", "")
        tables.show_table(
            columns,
            [
                (
                    r.name,
                    r.state,
                    f"{r.gain:.2f} x" if r.gain else "",
                    r.trials,
                    r.date,
                    r.place,
                    r.detail,
                )
                for r in rows
            ],
        )
        counts = {state: sum(row.state == state for row in rows) for state in status.STATES}
        print(f"\n{machine.name}: " + ", ".join(f"{n} {s}" for s, n in counts.items() if n))
        if counts[status.STALE] or counts[status.MISSING] or counts[status.BEGUN]:
            where = f" --output {shlex.quote(args.output)}" if args.output else ""
            print(f"to tune the rest: tvmconv tune {args.workload} --machine {machine.name}{where}")
    if args.report:
        from tvmconv.commands.show import report

        report.write(args.report, report.from_journals(layers, machine, pack, journals))
    return 0


def _summary(work: Plan, result: Session) -> None:
    written = [outcome.record for outcome in result.outcomes if outcome.record is not None]
    failures = sum(outcome.failures for outcome in result.outcomes)
    tried = sum(not outcome.untried for outcome in result.outcomes)
    state = "interrupted after" if result.interrupted else "tuned"
    print(
        f"{state} {tried} of {len(work.layers)} layers; {len(written)} beat the default "
        f"and are recorded in {work.directory / work.machine.name}; {failures} candidates failed"
    )
    if tried < len(result.outcomes):
        left = len(result.outcomes) - tried
        print(f"the time went where most can be saved: {left} layers keep their defaults for now")
    _say_what_is_saved(result)
    if result.interrupted:
        print("run the same command again to go on: all trials made so far are kept")
    elif result.outcomes and all(outcome.earlier for outcome in result.outcomes):
        print("all of it was done before: more --trials go on, --again starts anew")


def _say_what_is_saved(result: Session) -> None:
    """Sum up the network's layers, by default and with what was found, where all defaults are measured."""
    times = [(state, state.search.default_seconds) for state in result.states]
    if not times or not all(seconds for _, seconds in times) or result.interrupted:
        return
    before = sum(state.layer.count * (seconds or 0.0) for state, seconds in times)
    after = sum(
        state.layer.count * (seconds or 0.0) / _gain(state.outcome) for state, seconds in times
    )
    print(
        f"all layers, each as often as it occurs: {before * 1e6:.0f} us by default, {after * 1e6:.0f} us "
        f"with the records ({100 * (1 - after / before):.1f} % less)"
    )


def _gain(outcome: Outcome | None) -> float:
    """How many times as fast the layer has become."""
    return outcome.gain if outcome and outcome.record and outcome.gain else 1.0


def _as_json(outcome: Outcome) -> dict[str, object]:
    from tvmconv.records import record

    return {
        "key": outcome.spec.key,
        "trials": len(outcome.trials),
        "failures": outcome.failures,
        "gain": outcome.gain,
        "reason": outcome.reason,
        "earlier": outcome.earlier,
        "record": record.encode(outcome.record) if outcome.record else None,
    }
