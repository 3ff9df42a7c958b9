"""Time conv2d, depthwise_conv2d, and depthwise followed by 1x1 for one shape, side by side.

Shows what each costs in parameters, multiply-adds and bytes, what limits it on this machine, and how
much of the saving in multiply-adds arrives as a saving in time.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tvmconv.commands.options import arguments
from tvmconv.commands.show import tables
from tvmconv.hardware import host

if TYPE_CHECKING:
    from tvmconv.measuring.bench.comparison import Measured

_COLUMNS = (
    "operator", "output", "parameters", "Mmultiply-adds", "MB", "flops/byte", "us", "limited by",
    "fewer multiply-adds", "faster", "saving that arrives",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the shape and options."""
    parser.add_argument("--input", required=True, metavar="N,H,W,C", type=_shape)
    parser.add_argument("--kernel", required=True, metavar="K", type=arguments.positive)
    parser.add_argument("--out-channels", required=True, metavar="O", type=arguments.positive)
    parser.add_argument("--stride", default=1, type=arguments.positive, help="default: 1")
    arguments.add_machine(parser)
    parser.add_argument(
        "--threads", type=arguments.positive, default=1, help="of a call (default: 1)"
    )
    parser.add_argument("--rounds", type=arguments.positive, default=7, help="default: 7")
    parser.add_argument(
        "--picture", metavar="FILE", help="draw it too (PNG or SVG; needs matplotlib)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Build, time, print."""
    from tvmconv.measuring.bench import comparison

    arguments.check_threads(args.threads)
    compared = comparison.contenders(args.input, args.kernel, args.out_channels, args.stride)
    if args.picture:
        from tvmconv.commands.show import picture

        picture.require()
    with tables.progress() as show:
        measured = comparison.measure(compared, args.machine, args.threads, args.rounds, show)
    if args.picture:
        title = (
            f"{args.kernel}x{args.kernel}, input {','.join(map(str, args.input))}, "
            f"{args.out_channels} output channels: {args.machine} machine, {host.cpu_name()}"
        )
        picture.draw(measured, title, args.picture)
    if args.json:
        tables.show_json([_as_json(measured[0], row) for row in measured])
    else:
        tables.show_table(_COLUMNS, [_row(measured[0], row) for row in measured])
        print(f"{host.cpu_name()}, threads: {args.threads}, medians of {args.rounds} rounds")
    return 0


def _shape(text: str) -> tuple[int, int, int, int]:
    try:
        n, h, w, c = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not four numbers N,H,W,C") from None
    return n, h, w, c


def _row(dense: Measured, row: Measured) -> tuple[object, ...]:
    figures: dict[str, Any] = _as_json(dense, row)
    return (
        figures["operator"],
        "x".join(map(str, figures["output_shape"])),
        figures["parameters"],
        f"{figures['multiply_adds'] / 1e6:.2f}",
        f"{figures['bytes'] / 1e6:.2f}",
        f"{figures['flops_per_byte']:.1f}",
        f"{figures['microseconds']:.1f}",
        " + ".join(figures["limits"]),
        f"{figures['fewer_multiply_adds']:.1f} x",
        f"{figures['speedup']:.1f} x",
        f"{100 * figures['saving_that_arrives']:.0f} %",
    )


def _as_json(dense: Measured, row: Measured) -> dict[str, Any]:
    from tvmconv.measuring.bench.comparison import saving_that_arrives

    contender = row.contender
    return {
        "operator": contender.name,
        "keys": [spec.key for spec in contender.specs],
        "output_shape": contender.specs[-1].output_shape,
        "parameters": contender.parameters,
        "multiply_adds": contender.macs,
        "bytes": contender.bytes,
        "flops_per_byte": 2 * contender.macs / contender.bytes,
        "microseconds": row.microseconds,
        "limits": row.limits,
        "fewer_multiply_adds": dense.contender.macs / contender.macs,
        "speedup": dense.microseconds / row.microseconds,
        "saving_that_arrives": saving_that_arrives(dense, row),
    }
