"""Command-line arguments that several verbs share."""

from __future__ import annotations

import argparse
import os


def positive(text: str) -> int:
    """A whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def positive_float(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def address(text: str) -> tuple[str, int]:
    """HOST:PORT."""
    name, _, port = text.rpartition(":")
    if not name or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT, such as 127.0.0.1:9190")
    return name, int(port)


def check_threads(count: int) -> None:
    """Raise ValueError where ``--threads`` is more than calls may use on this machine."""
    from tvmconv.runtime.threads import MOST_PER_CORE, most_threads

    if count > most_threads():
        raise ValueError(
            f"--threads must be at most {most_threads()}, {MOST_PER_CORE} for each core that this process "
            f"may use; {count} was given"
        )


def add_workload(parser: argparse.ArgumentParser) -> None:
    """WORKLOAD: what to work on."""
    parser.add_argument(
        "workload",
        metavar="WORKLOAD",
        help="a known name (mobilenet_v2, resnet50, ...), a spec key, or a file of keys, one a line",
    )


def add_machine(parser: argparse.ArgumentParser) -> None:
    """``--machine``: what for."""
    parser.add_argument(
        "--machine", default="host", help="a name from `tvmconv machines`; default: host, this one"
    )


def add_targets(parser: argparse.ArgumentParser, verb: str, made: str) -> None:
    """Options of what writes ``made`` for one machine or several."""
    parser.add_argument(
        "--machine",
        default="host",
        metavar="M[,M2...]",
        help=f"what to {verb} for; the loader takes the best that runs (default: host, this machine)",
    )
    parser.add_argument(
        "--output", required=True, metavar="PATH", help=f"{made}; an older one is replaced"
    )
    add_logs(parser)
    add_winograd(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def machines(args: argparse.Namespace) -> list[str]:
    """The names given with ``--machine M[,M2...]``."""
    return [name.strip() for name in args.machine.split(",")]


def add_logs(parser: argparse.ArgumentParser) -> None:
    """``--logs`` and ``--untuned``: which tuning records."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--logs",
        action="append",
        metavar="DIR",
        help="take tuning records from DIR in place of your own and those shipped; may be repeated",
    )
    which.add_argument("--untuned", action="store_true", help="use no records, only defaults")


def add_winograd(parser: argparse.ArgumentParser) -> None:
    """``--no-winograd``: the defining sum only."""
    parser.add_argument(
        "--no-winograd",
        dest="winograd",
        action="store_false",
        help="compute no 3x3 convolution by Winograd's algorithm, but by the defining sum: slower",
    )


def add_cache(parser: argparse.ArgumentParser) -> None:
    """``--cache``: what a timed call finds in the caches."""
    parser.add_argument(
        "--cache",
        choices=("warm", "cold"),
        default="warm",
        help="warm: call after call; cold: on a CPU all but data flushed before each call, on a GPU data "
        "too is out of L2 (default: warm)",
    )


def logs(args: argparse.Namespace) -> list[str] | None:
    """Return the directories that the user chose, None for the usual ones; checks that they exist."""
    if args.untuned:
        return []
    for folder in args.logs or ():
        if not os.path.isdir(folder):
            raise ValueError(f"--logs {folder} is not a directory")
    chosen: list[str] | None = args.logs
    return chosen
