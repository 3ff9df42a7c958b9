"""Checks a compiled model: its kernels and outputs alone, or its values beside the model's own runtime."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmconv import writing
from tvmconv.commands.options import models
from tvmconv.commands.show import tables
from tvmconv.models import comparing, runtimes
from tvmconv.models.comparing import Difference
from tvmconv.models.foreign.opened import Request

if TYPE_CHECKING:
    from tvmconv.models.graph import Array, Graph
    from tvmconv.runtime import Library, Model

_REFERENCE = "our NumPy reference in float64"


def kernels(model: Model) -> Library:
    """The model's convolutions, as a library of them."""
    from tvmconv.problem.spec import ConvSpec
    from tvmconv.runtime import Library

    specs = {key: ConvSpec.from_key(key) for key in model.variant.kernels}
    return Library(model.path, model.manifest, model.variant, specs, model.threads, model.mapped)


def not_finite(model: Model, seed: int) -> list[str]:
    """Names of outputs that are not finite on random inputs."""
    made = _outputs(model, comparing.random_inputs(model.inputs, seed))
    return [name for name, array in made.items() if not np.isfinite(array).all()]


def run(args: argparse.Namespace, model: Model) -> int:
    """Compare ``model`` with the file in ``--model``; 1 where a value is off by more than is allowed."""
    path = models.check_file(args.model)
    inputs = comparing.given_inputs(model.inputs, dict(args.input), args.seed)
    if args.tensors:
        return _run_tensors(args, model, path, inputs)
    beside = _REFERENCE if args.reference else _runtime(path)
    made = _outputs(model, inputs)
    if beside == _REFERENCE:
        expected = list(_evaluated(_graph(path, model), inputs).values())
    else:
        names = [each.name for each in model.outputs]
        opened = runtimes.opened(beside, Request(path, inputs, names, model.threads))
        opened.call()
        expected = opened.results()
    if len(made) != len(expected):
        raise ValueError(
            f"{model.path.name} has {len(made)} outputs, {path.name} has {len(expected)}: "
            "is this the model that was compiled?"
        )
    found = [
        comparing.difference(name, array, right, args.tolerance)
        for (name, array), right in zip(made.items(), expected, strict=True)
    ]
    return _report(args, model, beside, found)


def _runtime(path: Path) -> str:
    """The model's own runtime, where it is installed; else our reference."""
    own = runtimes.own(path)
    return own.name if own and not own.missing else _REFERENCE


def _outputs(model: Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
    made: Any = model(*(inputs[each.name] for each in model.inputs))
    names = [each.name for each in model.outputs]
    return dict(zip(names, made if len(names) > 1 else [made], strict=True))


def _graph(path: Path, model: Model) -> Graph:
    """The model in ``path``, of the shapes that it was compiled for."""
    from tvmconv.models import reading

    return reading.read(path, {each.name: each.shape for each in model.inputs})


def _evaluated(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    from tvmconv.models import reference

    return reference.evaluate(graph, inputs)


def _run_tensors(
    args: argparse.Namespace, model: Model, path: Path, inputs: Mapping[str, Array]
) -> int:
    """Compare every value that the compiled graph has with our reference, in order."""
    from tvmconv import runtime
    from tvmconv.models.compile import compile
    from tvmconv.models.folding.fold import fold

    graph = fold(_graph(path, model))
    shown = dataclasses.replace(graph, outputs={node.name: node.name for node in graph.nodes})
    with writing.scratch("tvmconv-verify-") as scratch, tables.progress(quiet=args.json) as report:
        folder = compile(shown, model.variant.machine, scratch / "tensors.tvmconv", progress=report)
        made = _outputs(runtime.load(folder, model.threads), inputs)
    expected = _evaluated(shown, inputs)
    found = [
        comparing.difference(
            node.name, made[node.name], expected[node.name], args.tolerance, node.place
        )
        for node in graph.nodes
    ]
    return _report(args, model, f"{_REFERENCE}, value by value, compiled anew", found)


def _report(
    args: argparse.Namespace, model: Model, beside: str, found: Sequence[Difference]
) -> int:
    wrong = [each for each in found if not each.passes]
    if args.json:
        tables.show_json(
            {
                "machine": model.variant.machine,
                "beside": beside,
                "tolerance": args.tolerance,
                "seed": args.seed,
                "values": [
                    {**dataclasses.asdict(each), "relative": each.relative, "passes": each.passes}
                    for each in found
                ],
            }
        )
        return 1 if wrong else 0
    what = "value" if args.tensors else "output"
    tables.show_table(
        (what, "error", "largest", "relative", ""),
        [
            (e.name, f"{e.absolute:.2g}", f"{e.largest:.3g}", f"{e.relative:.1e}", _word(e))
            for e in found
        ],
    )
    source = comparing.TOLERANCE_SOURCE if args.tolerance == comparing.TOLERANCE else "--tolerance"
    print(
        f"\n{len(found) - len(wrong)} of {len(found)} {what}s are those of {beside}, on "
        f"{'given' if args.input else 'random'} inputs (seed {args.seed})\n"
        f"allowed: {args.tolerance:g} of the largest value ({source}), one for bytes, "
        "nothing for other integers"
    )
    if wrong and args.tensors:
        first = wrong[0]
        print(f"the first that deviates: {first.name} ({first.place or 'no place in the file'})")
    elif wrong:
        print("to see where it begins: the same command with --tensors")
    return 1 if wrong else 0


def _word(each: Difference) -> str:
    return "" if each.passes else "WRONG"
