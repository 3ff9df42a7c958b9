"""Compile kernels into a bundle, a directory that runs without a compiler.

WORKLOAD is a known name (mobilenet_v2, resnet50, ...), the key of one convolution, or a file of
keys, one a line. Each kernel is made by its tuning record if there is one, else by the default of
its schedule.
"""

from __future__ import annotations

import argparse
from typing import Any

from tvmconv.building import builder
from tvmconv.bundle import manifest as bundle
from tvmconv.bundle.manifest import Variant
from tvmconv.commands.options import arguments, models
from tvmconv.commands.show import tables
from tvmconv.hardware import host
from tvmconv.problem import workloads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    arguments.add_workload(parser)
    arguments.add_targets(parser, "build", "the bundle")
    parser.add_argument(
        "--sign", metavar="KEYFILE", help="sign it with this private key (`tvmconv key` makes one)"
    )


def run(args: argparse.Namespace) -> int:
    """Build and say what came of it."""
    if models.is_file(args.workload):
        raise ValueError(
            f"{args.workload} is a model. Compile it: tvmconv compile {args.workload} --output PATH"
        )
    specs = workloads.distinct(workloads.resolve(args.workload))
    machines, logs = arguments.machines(args), arguments.logs(args)
    with tables.progress(quiet=args.json) as report:
        path = builder.build(specs, machines, args.output, logs, report, args.winograd, args.sign)
    manifest = bundle.read_manifest(path)
    size = sum(file.stat().st_size for file in path.iterdir())
    counts = [_count(variant) for variant in manifest.variants]
    if args.json:
        tables.show_json({"path": str(path), "bytes": size, "variants": counts})
        return 0
    print(f"{path}: {len(specs)} kernels, {size / 1e6:.1f} MB")
    for count in counts:
        print(
            f"  {count['machine']}: {count['tuned']} from tuning records, {count['default']} with "
            f"default decisions, {count['empty']} with nothing to compute"
        )
        if count["default"]:
            print(f"  to tune: tvmconv tune {args.workload} --machine {count['machine']}")
    print(f"check it:  tvmconv verify {path}\nuse it:    tvmconv.load({str(path)!r})")
    foreign = [v for v in manifest.variants if v.architecture != host.architecture()]
    for variant in foreign:
        print(
            f"{variant.machine} runs on {variant.architecture} with glibc {variant.glibc} or newer. "
            "There: pip install tvmconv, copy the directory, and check it"
        )
    return 0


def _count(variant: Variant) -> dict[str, Any]:
    entries = variant.kernels.values()
    return {
        "machine": variant.machine,
        "tuned": sum(entry.record is not None for entry in entries),
        "default": sum(entry.record is None and entry.symbol is not None for entry in entries),
        "empty": sum(entry.symbol is None for entry in entries),
    }
