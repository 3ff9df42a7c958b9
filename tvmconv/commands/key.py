"""Make a pair of keys: a private one that signs bundles, and a public one that checks the signature.

Use them with: tvmconv build ... --sign KEYFILE, and tvmconv.load(PATH, trusted="KEYFILE.pub").
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tvmconv.bundle import signature


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "--output",
        required=True,
        metavar="KEYFILE",
        help="the private key, which nobody else may read; the public one is KEYFILE.pub",
    )


def run(args: argparse.Namespace) -> int:
    """Write both files and say what each is for."""
    private = Path(args.output)
    public = signature.make_keys(private)
    print(f"{private}: signs bundles; keep it where they are built\n{public}: checks signatures")
    return 0
