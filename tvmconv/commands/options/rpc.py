"""``tvmconv tune --rpc-tracker``: boards over the network."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tvmconv.commands.options import arguments

if TYPE_CHECKING:
    from tvmconv.measuring.places.boards import Boards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--rpc-tracker`` and ``--rpc-key``."""
    parser.add_argument(
        "--rpc-tracker",
        metavar="HOST:PORT",
        type=arguments.address,
        help="measure on boards, or machines with a GPU, that this tracker of TVM's RPC knows "
        "(`tvmconv board` there)",
    )
    parser.add_argument(
        "--rpc-key", metavar="KEY", help="of the boards; default: the machine's name"
    )


def boards(args: argparse.Namespace) -> Boards | None:
    """Return the boards that the user named; None where there are none."""
    from tvmconv.measuring.places.boards import Boards

    if not args.rpc_tracker:
        if args.rpc_key:
            raise ValueError(
                "--rpc-key names boards of a tracker: give --rpc-tracker HOST:PORT too"
            )
        return None
    return Boards(args.rpc_tracker, args.rpc_key or args.machine)
