"""Put a copy of a bundle in the place of another, at once, after checking that it is whole.

A process that loads PATH finds the old bundle or the new one; one that has it loaded keeps the old one.
"""

from __future__ import annotations

import argparse

from tvmconv.bundle import publishing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", metavar="BUNDLE", help="the new one; it stays where it is")
    parser.add_argument("output", metavar="PATH", help="where it is loaded from")


def run(args: argparse.Namespace) -> int:
    """Publish it and say where."""
    print(publishing.install(args.bundle, args.output))
    return 0
