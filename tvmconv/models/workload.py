"""The convolutions of a model as a workload, for the tuner."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tvmconv.errors import ModelError
from tvmconv.models import reading
from tvmconv.models.folding.fold import fold
from tvmconv.models.graph import Graph
from tvmconv.problem.workloads import Layer, Workload


def workload(
    model: str | os.PathLike[str] | Graph, input_shapes: Mapping[str, Sequence[int]] | None = None
) -> Workload:
    """Return exactly the convolutions that `compile` compiles for a model, each with how often it occurs.

    Layers are named by their operator and their number, in the model's order: ``conv2d_1``,
    ``depthwise_conv2d_2``. Raises ModelError for a model that cannot be read or has no convolution.
    """
    graph = model if isinstance(model, Graph) else reading.read(Path(model), input_shapes)
    from tvmconv.models import partition, rewriting  # need TVM, which the reader's errors do not

    sequence = partition.convolutions(rewriting.rewritten(fold(graph))).values()
    if not sequence:
        raise ModelError(f"{graph.name} has no convolution: there is nothing to tune")
    layers = [
        Layer(f"{spec.op}_{number}", spec, count)
        for number, (spec, count) in enumerate(Counter(sequence).items(), 1)
    ]
    names = {layer.spec: layer for layer in layers}
    every = tuple(Layer(names[spec].name, spec) for spec in sequence)
    return Workload(graph.name, f"the convolutions of {graph.name}", tuple(layers), every)
