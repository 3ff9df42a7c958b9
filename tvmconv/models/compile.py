"""The whole way on one page: a model and a machine -> a file that runs without a compiler."""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tvmconv.building import builder, toolchain
from tvmconv.bundle import manifest
from tvmconv.bundle.model_entries import LayerEntry, ModelEntry, ProgramEntry, TensorEntry
from tvmconv.errors import ModelError
from tvmconv.models import graph as graphs
from tvmconv.models import reading
from tvmconv.models.folding.fold import fold
from tvmconv.problem.spec import ConvSpec

Model = Any  # what `reading.read` takes, or a Graph
Shapes = Mapping[str, Sequence[int]]


def compile(
    model: Model,
    machine: str | Sequence[str] = "host",
    output: str | os.PathLike[str] = "model.tvmconv",
    input_shapes: Shapes | None = None,
    logs: Sequence[str | os.PathLike[str]] | None = None,
    progress: builder.Progress | None = None,
    winograd: bool = True,
    example_inputs: Sequence[Any] | None = None,
) -> Path:
    """Compile a whole model into a directory that `tvmconv.load` opens without a compiler.

    Args:
        model: a ``.tflite`` or ``.onnx`` file, a `torch.export.ExportedProgram`, a `torch.nn.Module`, or a
            `tvmconv.models.graph.Graph`.
        machine: a CPU's name (``tvmconv machines`` lists them; ``"host"`` detects it) or several.
        output: the directory to write; an older one is replaced at once, never half.
        input_shapes: name of an input -> shape, where it is to be another than the model says.
        logs: as in `tvmconv.build`.
        progress: as in `tvmconv.build`.
        winograd: as in `tvmconv.build`.
        example_inputs: tensors that a module is exported with; their shapes are the model's.

    Returns:
        The absolute path of the directory.

    Raises:
        ModelError: the model cannot be read, or has something that is not supported.
        BuildError: the machine is a GPU; and all that `tvmconv.build` raises.

    """
    toolchain.require_compiler()
    graph = fold(_graph(model, input_shapes, example_inputs))
    from tvmconv.models import (
        partition,
        rewriting,
    )  # need TVM, which an error above need not wait for

    graph = rewriting.rewritten(graph)
    specs = partition.convolutions(graph)
    distinct = list({spec.key: spec for spec in specs.values()}.values())
    names = [machine] if isinstance(machine, str) else list(machine)
    requests = [builder.request(distinct, name, logs, winograd) for name in names]
    for request in requests:
        if request.machine.gpu is not None:
            raise ModelError(
                f"{request.machine.name} is a GPU: models are compiled for CPUs so far"
            )

    def variant(
        request: builder.Request, staging: Path, report: builder.Progress
    ) -> manifest.Variant:
        return _variant(graph, specs, distinct, request, staging, report)

    keys = [spec.key for spec in distinct]
    return builder.publish(requests, output, progress, variant, keys, _model_entry(graph))


def _graph(
    model: Model, input_shapes: Shapes | None, example_inputs: Sequence[Any] | None
) -> graphs.Graph:
    if isinstance(model, graphs.Graph):
        return model
    return reading.read(model, input_shapes, example_inputs)


def _variant(
    graph: graphs.Graph,
    specs: Mapping[str, ConvSpec],
    distinct: Sequence[ConvSpec],
    request: builder.Request,
    staging: Path,
    report: builder.Progress,
) -> manifest.Variant:
    from tvmconv.models import (
        arena,
        in_place,
        lifetimes,
        main_function,
        partition,
        places,
        weights,
    )

    machine = request.machine
    report(f"scheduling {graph.name} for {machine.name}", 0, 2)
    functions = builder.scheduled(distinct, request)
    program = partition.partition(graph, specs, functions, machine)
    file = staging / manifest.weights_name(machine.name)
    in_place.share_places(program)
    offsets = weights.write(program, functions, file)
    alive = lifetimes.lifetimes(program)
    plan = arena.plan(alive)
    layout = main_function.Layout(offsets, file.stat().st_size, plan)
    mains = {key: function.main for key, function in functions.items()} | program.rest
    mains |= {builder.pack_symbol(k): f.pack for k, f in functions.items() if f.pack is not None}
    main = main_function.main_function(program, layout, mains)
    others = {**program.rest, main_function.SYMBOL: main}
    entry = ProgramEntry(
        symbol=main_function.SYMBOL,
        weights=file.name,
        sha256=manifest.file_digest(file),
        crc32=zlib.crc32(file.read_bytes()),
        weights_bytes=layout.weights_bytes,
        arena_bytes=plan.bytes,
        values_bytes=sum(each.bytes for each in alive.values()),
        layers=tuple(
            LayerEntry(
                call.symbol,
                tuple(node.op for node in call.nodes),
                program.tensors[call.result].shape,
                call.key,
                arguments,
            )
            for call, arguments in zip(
                program.calls, places.arguments(program, layout, mains), strict=True
            )
        ),
    )
    built = builder.variant(distinct, request, functions, staging, report, others)
    return dataclasses.replace(built, program=entry)


def _model_entry(graph: graphs.Graph) -> ModelEntry:
    inputs = [TensorEntry(name, each.shape, each.dtype) for name, each in graph.inputs.items()]
    outputs = [
        TensorEntry(public, graph.tensor(name).shape, graph.tensor(name).dtype)
        for public, name in graph.outputs.items()
    ]
    return ModelEntry(graph.name, tuple(inputs), tuple(outputs))
