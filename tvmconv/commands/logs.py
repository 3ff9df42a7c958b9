"""Keep tuning records in order: merge directories, prune what is of no use, promote one's own.

A directory of logs holds <machine>/<op>.jsonl, one record a line. Each command reads and checks
everything before it writes, and replaces a file whole or not at all.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tvmconv.commands.show import tables
from tvmconv.problem import workloads
from tvmconv.records import log, pruning, upkeep
from tvmconv.records.upkeep import Change

_Action = Callable[[argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the three commands."""
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_merge(
        _command(commands, "merge", _merge, "put the records of several directories into one")
    )
    _add_prune(_command(commands, "prune", _prune, "take out records that are of no use any more"))
    _add_promote(
        _command(commands, "promote", _promote, "put your own records into those that are shipped")
    )


def run(args: argparse.Namespace) -> int:
    """Do what the command says; 1 when a record was refused."""
    action: _Action = args.action
    return action(args)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    action: _Action,
    summary: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=inspect.getdoc(action),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(action=action)
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    return parser


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", metavar="FROM", nargs="+", help="a directory of logs")
    parser.add_argument("--into", metavar="DIR", required=True, help="where the records go")


def _add_prune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="a directory of logs")
    parser.add_argument(
        "--machine", metavar="M", help="only this machine's, or board's; host is this one"
    )
    parser.add_argument(
        "--damaged",
        action="store_true",
        help="take out lines that are no records too; <file>.bak keeps a copy",
    )


def _add_promote(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "workload",
        metavar="WORKLOAD",
        nargs="?",
        help="only these convolutions: a known name, a spec key, or a file of keys",
    )
    parser.add_argument(
        "--machine", metavar="M", required=True, help="whose records; host is this machine"
    )
    parser.add_argument(
        "--from", metavar="DIR", dest="source", help="a directory of logs (default: your own)"
    )
    parser.add_argument(
        "--into",
        metavar="DIR",
        help="where the records go (default: this source tree's tuning_logs)",
    )


def _merge(args: argparse.Namespace) -> int:
    """Put the records of several directories into one.

    Of records for one convolution on one machine the better stays: a measured one before a simulated
    one, one of the installed TVM release before others, then the one that gains more over the default
    timed beside it, then the newer.
    """
    into = Path(args.into)
    changes = upkeep.merge([Path(source) for source in args.sources], into, args.dry_run)
    return _show(changes, into, args)


def _prune(args: argparse.Namespace) -> int:
    """Take out records that are of no use.

    That is: of an unknown machine, schedule or decision, of another TVM release, in a file where nobody
    looks for them, less than 2 % faster than the default, or followed by one of the same key.
    """
    directory = Path(args.directory)
    changes = pruning.prune(directory, args.machine, args.damaged, args.dry_run)
    return _show(changes, directory, args)


def _promote(args: argparse.Namespace) -> int:
    """Put your own records for one machine into those that are shipped.

    Where both have a record the better stays, as with merge. One that no longer applies or does not
    beat the default by 2 % is refused, and the exit code is 1. Your own stay where they are.
    """
    wanted = None
    if args.workload is not None:
        wanted = {layer.spec.key for layer in workloads.resolve(args.workload).entries}
    into = Path(args.into) if args.into else _shipped()
    source = Path(args.source) if args.source else _own(args.machine)
    changes = upkeep.promote(source, args.machine, wanted, into, args.dry_run)
    code = _show(changes, into, args)
    return 1 if any(change.action == "refused" for change in changes) else code


def _shipped() -> Path:
    directory = log.shipped_directory()
    if not log.shipped_is_source():
        raise ValueError(
            f"the shipped records are in {directory}, which belongs to an installed package and not to "
            "a source tree: the next pip install would overwrite what is put there. Name the folder "
            "of a source tree, as in --into ~/tvmconv/tuning_logs."
        )
    return directory


def _own(machine: str) -> Path:
    directory = log.user_directory()
    if not directory.is_dir():
        raise ValueError(
            f"you have no records of your own in {directory}. Name another directory with --from, or "
            f"make some: tvmconv tune WORKLOAD --machine {machine}"
        )
    return directory


def _show(changes: Sequence[Change], directory: Path, args: argparse.Namespace) -> int:
    if args.json:
        tables.show_json(
            {
                "directory": str(directory),
                "dry_run": args.dry_run,
                "changes": [dataclasses.asdict(change) for change in changes],
            }
        )
        return 0
    if changes:
        tables.show_table(
            ("", "machine", "convolution", "gain", "from", "because"), [_cells(c) for c in changes]
        )
        print()
    written = "; nothing was written: --dry-run" if args.dry_run else ""
    print(f"{directory}: {_count(changes)}{written}")
    return 0


def _cells(change: Change) -> tuple[object, ...]:
    return (
        change.action,
        change.machine,
        change.key or "-",
        "-" if change.gain is None else f"{change.gain:.3f}",
        f"{change.file}:{change.line}",
        change.reason,
    )


def _count(changes: Sequence[Change]) -> str:
    numbers = Counter(change.action for change in changes)
    return ", ".join(f"{number} {action}" for action, number in numbers.items()) or "nothing to do"
