"""Command-line arguments that several verbs share."""

from __future__ import annotations

import argparse


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


def add_logs(parser: argparse.ArgumentParser) -> None:
    """``--logs``: which tuning records."""
    parser.add_argument(
        "--logs",
        nargs="*",
        metavar="DIR",
        help="directories of tuning records, the first that has one wins; without any DIR: none, "
        "untuned defaults; default: your own, then those shipped",
    )
