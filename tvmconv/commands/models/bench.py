"""Times a whole model, beside the runtimes that its file is made for."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tvmconv import writing
from tvmconv.bundle import manifest as bundle
from tvmconv.commands.models import profile
from tvmconv.commands.options import arguments, models
from tvmconv.commands.show import model_page, tables
from tvmconv.errors import MissingToolError
from tvmconv.hardware import host
from tvmconv.measuring.bench.models import Profile
from tvmconv.measuring.peers.models import ModelRace, race
from tvmconv.measuring.peers.race import OURS
from tvmconv.models import runtimes
from tvmconv.runtime import load


@dataclasses.dataclass(frozen=True)
class Timed:
    """What the JSON file holds, and what prints the table."""

    figures: dict[str, Any]
    show: Callable[[], None]


def run(args: argparse.Namespace) -> Timed:
    """Time the model, with ``--profile`` its calls, with ``--report`` both; compiled now, or already."""
    arguments.check_threads(args.threads)
    compiled = args.workload if Path(args.workload).is_dir() else args.bundle
    file = None if compiled == args.workload else models.check_file(args.workload)
    if args.report:
        model_page.check(args.report)
    elif args.profile and args.peers:
        raise ValueError(
            "--profile times our own calls, --peers whole models: give one of them, or --report PAGE.html"
        )
    names, absent = peers(args.peers, file) if args.peers else ([], {})
    with writing.scratch("tvmconv-bench-") as scratch, tables.progress() as show:
        path = _compiled(args, compiled, scratch / "m.tvmconv", show)
        if args.profile and not args.report:
            made = profile.profile(path, args.threads, args.rounds, show)
            return Timed(profile.as_json(made), lambda: profile.show(made))
        raced = race(path, file, names, args.threads, args.rounds, show)
        raced.absent.update(absent)
        figures = {"model": args.workload, **as_json(raced)}
        if args.report:
            made = profile.profile(path, args.threads, args.rounds, show)
            figures["profile"] = profile.as_json(made)
            _write_page(args.report, path, raced, made)
    return Timed(figures, lambda: show_race(raced))


def _compiled(
    args: argparse.Namespace, compiled: str | None, output: Path, show: tables.Progress
) -> Path:
    """The model as it is to be timed."""
    if compiled is None:
        from tvmconv.models.compile import compile

        shapes, logs = models.input_shapes(args), arguments.logs(args)
        return compile(args.workload, args.machine, output, shapes, logs, show, args.winograd)
    if args.input_shape:
        raise ValueError(f"--input-shape: {compiled} is compiled already; leave it out")
    _require_model(Path(compiled))
    return Path(compiled)


def _write_page(report: str, path: Path, raced: ModelRace, made: Profile) -> None:
    model = load(path, threads=made.threads)
    described, program = model.manifest.model, model.variant.program
    if described is None or program is None:  # which has been timed, so they are there
        raise ValueError(f"{path} holds kernels, no model")
    model_page.write(report, model_page.Contents(described, program, raced, made))
    tables.show_note(f"report: {report}")


def as_json(raced: ModelRace) -> dict[str, Any]:
    """All times as plain data, with medians and ratios."""
    return {
        "cpu": host.cpu_name(),
        "date": datetime.date.today().isoformat(),
        "versions": {n: runtimes.named(n).versions for n in raced.errors},
        **dataclasses.asdict(raced),
        "median_seconds": {name: raced.median(name) for name in raced.seconds},
        "ratios": {name: raced.ratio(name) for name in raced.seconds if name != OURS},
    }


def _require_model(path: Path) -> None:
    if bundle.read_manifest(path).model is None:
        raise ValueError(
            f"{path} holds kernels, no model. Make one: tvmconv compile MODEL --output PATH"
        )


def peers(text: str, file: Path | None) -> tuple[list[str], dict[str, str]]:
    """Split and check ``--peers``: names of runtimes that open the file here; of others, why they do not.

    ``all`` stands for every runtime. Raises ValueError for an unknown name, MissingToolError when none of
    those that are named can run here.
    """
    if file is None:
        raise ValueError(
            "--peers opens the model's own file: name that, and what is compiled with --bundle PATH"
        )
    wanted = runtimes.NAMES if text == "all" else [name.strip() for name in text.split(",")]
    found, absent = [], {}
    for name in dict.fromkeys(wanted):
        if name not in runtimes.NAMES:
            raise ValueError(
                f"--peers names {name!r}. Whole models are raced with {', '.join(runtimes.NAMES)}, or all"
            )
        reason = runtimes.named(name).why_not(file)
        if reason is None:
            found.append(name)
        else:
            absent[name] = reason
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
        raise MissingToolError(f"nothing to race {file.name} with. {reasons}")
    return found, absent


def show_race(raced: ModelRace) -> None:
    """Print the table."""
    rows = [
        (
            name,
            f"{raced.median(name) * 1e3:.3f}",
            f"{min(times) * 1e3:.3f}-{max(times) * 1e3:.3f}",
            "" if name == OURS else f"{raced.ratio(name):.2f}",
            "" if name == OURS else f"{raced.errors[name]:.0e}",
        )
        for name, times in raced.seconds.items()
    ]
    tables.show_table(("", "ms", "spread", "times ours", "differs by"), rows)
    facts = f"{host.cpu_name()}, threads: {raced.threads}, {raced.rounds} rounds in turn"
    tables.show_facts([("machine", facts)])
    for name, why in raced.absent.items():
        print(f"{name} has no time: {why}")
