"""Compile a whole model into a directory that runs without a compiler.

MODEL is a .tflite or .onnx file. Each of its convolutions is made by its tuning record if there is one,
else by the default of its schedule.
"""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from tvmconv.bundle import manifest as bundle
from tvmconv.commands.options import arguments
from tvmconv.commands.options import models as models_options
from tvmconv.commands.show import tables
from tvmconv.models import compile as models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a .tflite or .onnx file")
    arguments.add_targets(parser, "compile", "the directory")
    models_options.add_input_shape(parser)


def run(args: argparse.Namespace) -> int:
    """Compile and say what came of it."""
    models_options.check_file(args.model)
    shapes = models_options.input_shapes(args)
    logs = arguments.logs(args)
    with tables.progress(quiet=args.json) as report:
        path = models.compile(
            args.model, arguments.machines(args), args.output, shapes, logs, report, args.winograd
        )
    manifest = bundle.read_manifest(path)
    size = sum(file.stat().st_size for file in path.iterdir())
    summary = [_summary(variant) for variant in manifest.variants]
    if args.json:
        tables.show_json({"path": str(path), "bytes": size, "variants": summary})
        return 0
    print(f"{path}: {size / 1e6:.1f} MB")
    model, folder = shlex.quote(args.model), shlex.quote(str(path))
    for each in summary:
        print(
            f"  {each['machine']}: {each['calls']} calls, {each['convolutions']} of them convolutions, "
            f"weights {each['weights_bytes'] / 1e6:.1f} MB, arena {each['arena_bytes'] / 1e6:.1f} MB"
        )
        if each["default"]:
            print(
                f"  {each['default']} of {each['distinct']} different convolutions have no tuning record: "
                f"tvmconv tune {model} --machine {each['machine']} --minutes 10"
            )
    print(f"check it:   tvmconv verify {folder} --model {model}")
    print(f"time it:    tvmconv bench {model} --bundle {folder} --peers all")
    print(f"look at it: tvmconv inspect {folder}\nuse it:     tvmconv.load({str(path)!r})")
    return 0


def _summary(variant: bundle.Variant) -> dict[str, Any]:
    program = variant.program
    layers = program.layers if program else ()
    return {
        "machine": variant.machine,
        "calls": len(layers),
        "convolutions": sum(layer.key is not None for layer in layers),
        "distinct": len(variant.kernels),
        "default": sum(e.symbol is not None and not e.record for e in variant.kernels.values()),
        "weights_bytes": program.weights_bytes if program else 0,
        "arena_bytes": program.arena_bytes if program else 0,
    }
