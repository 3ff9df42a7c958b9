"""Measure a batch of candidates that `tvmconv tune --export` has made, on the machine they are for.

It needs the file, NumPy and apache-tvm-ffi, and no network. Every candidate's values are checked against
the oracle before it is timed. Each result is written down at once: after Ctrl-C, or a power cut, the same
command goes on. `tvmconv tune --import`, where the batch was made, learns from the results.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tvmconv.commands.options import arguments
from tvmconv.commands.show import tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("batch", metavar="TAR", help="made by tvmconv tune --export")
    parser.add_argument(
        "--output", metavar="FILE", help="where results go (default: beside TAR, .results for .tar)"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=arguments.positive_float,
        help="for one candidate (default: 5 times what its layer's default takes, at least 10 s)",
    )


def run(args: argparse.Namespace) -> int:
    """Measure, and say how far it is."""
    from tvmconv.measuring.places import batch_measuring, batch_results

    tar = Path(args.batch)
    output = Path(args.output) if args.output else tar.with_suffix(".results")
    interrupted = False
    with tables.progress() as report:
        try:
            batch_measuring.measure(tar, output, report, args.timeout)
        except KeyboardInterrupt:
            interrupted = True
    known = batch_results.read(output) if output.exists() and output.stat().st_size else None
    failed = sum(timed.seconds is None for timed in known.timed.values()) if known else 0
    count = len(known.timed) if known else 0
    print(
        f"{'interrupted after' if interrupted else 'measured'} {count} candidates, {failed} failed; "
        f"{len(known.finals) if known else 0} layers compared; results are in {output}"
    )
    if interrupted:
        print("run the same command again to go on", file=sys.stderr)
        return 130
    print(f"now, where the batch was made: tvmconv tune WORKLOAD ... --import {output.name}")
    return 0
