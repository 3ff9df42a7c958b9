"""Serve this board to `tvmconv tune --rpc-tracker`, until Ctrl-C; NumPy and apache-tvm-ffi are enough.

TVM's RPC knows no authentication and no encryption: whoever can connect can run any program as you. So the
server listens on this machine's own address 127.0.0.1 unless told otherwise. From elsewhere it is reached
through an ssh tunnel: docs/tuning.md shows the command.

Kernels for a GPU are measured on the first GPU of their architecture, which needs a driver and CUDA's runtime
library (pip install 'tvmconv[cuda]'). Where there are several, start a server for each, with
CUDA_VISIBLE_DEVICES=0, 1, ... and a --port of its own.
"""

from __future__ import annotations

import argparse
import ipaddress
from pathlib import Path

from tvmconv.commands.options import arguments
from tvmconv.commands.show import tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "--key", required=True, help="under which the tracker knows boards like this"
    )
    parser.add_argument(
        "--tracker", metavar="HOST:PORT", type=arguments.address, required=True, help="to report to"
    )
    parser.add_argument(
        "--runtime",
        metavar="BUNDLE",
        help="where libtvm_runtime.so is: a bundle for this board, or the file (default: installed TVM)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=int, default=9091, help="0 takes any that is free (default: 9091)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve; 130 after Ctrl-C."""
    from tvmconv.hardware import host
    from tvmconv.measuring.places import board_server

    host.require_64_bits()
    runtime = board_server.find_runtime(Path(args.runtime) if args.runtime else None)
    if not _is_loopback(args.host):
        tables.show_note(
            f"WARNING: TVM's RPC has no authentication: everybody who reaches {args.host} can run any "
            "program here as you. Only do this in a network you trust; else listen on 127.0.0.1 and use "
            "an ssh tunnel (docs/tuning.md)."
        )
    board_server.serve(
        board_server.Server((args.host, args.port), args.key, args.tracker, runtime),
        tables.show_note,
    )
    return 0


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
