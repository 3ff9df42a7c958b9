"""Named lists of convolutions that tests, tuning and benchmarks share; and a user's own lists.

Networks are batch 1, 224x224 unless they say so, float32, NHWC, with the epilogue that runs at inference:
batch normalisation folded into the filter and a bias, then activation and residual. Layers that are equal
appear once, under the name of the first, with the number of times the network has them.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from tvmconv.errors import UnknownNameError
from tvmconv.problem import branched_networks, dense_networks, found_slow, mobile_networks
from tvmconv.problem.edge_cases import EDGE_CASES
from tvmconv.problem.layers import Layer, Workload, counted
from tvmconv.problem.rules import OP_DTYPES, TF32
from tvmconv.problem.spec import ConvSpec

__all__ = ["Layer", "Workload", "distinct", "in_dtype", "names", "resolve"]

# What may stand behind a workload's name.
_PRECISIONS = (*OP_DTYPES["conv2d"], TF32)


def names() -> tuple[str, ...]:
    """Return the names that `resolve` knows, sorted."""
    return tuple(sorted(_WORKLOADS))


def distinct(*workloads: Workload) -> tuple[ConvSpec, ...]:
    """Return the specs of all ``workloads``, each once, in order of first appearance."""
    return tuple(dict.fromkeys(layer.spec for each in workloads for layer in each.entries))


def resolve(text: str) -> Workload:
    """Return the workload that ``text`` names: a known name, a spec key, or a file of keys.

    Behind a known name may stand a dtype, as in ``resnet50:int8``: see `in_dtype`. A file has one key
    a line; ``#`` begins a comment, and empty lines are skipped.

    Raises:
        UnknownNameError: neither a known name nor a file; the message lists near names and all.
        ValueError: a malformed key, or a file with one, naming file and line, or with no key.

    """
    name, colon, dtype = text.partition(":")
    if name in _WORKLOADS and (not colon or dtype in _PRECISIONS):
        workload = _WORKLOADS[name]()
        return in_dtype(workload, dtype) if colon else workload
    # Not Path.is_file, which raises on a key longer than a file name may be.
    if os.path.isfile(text):
        return _from_file(Path(text))
    if text.startswith(tuple(f"{op}_" for op in OP_DTYPES)):
        spec = ConvSpec.from_key(text)
        return Workload(spec.key, "one convolution", (Layer(spec.key, spec),))
    near = difflib.get_close_matches(text, names())
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UnknownNameError(
        f"There is no workload {text!r}, nor a file of that name.{hint} "
        f"Known are {', '.join(names())}. Name one of these (with :DTYPE behind it for another of "
        f"{', '.join(_PRECISIONS)}), a spec key, or a file of keys."
    )


def in_dtype(workload: Workload, dtype: str) -> Workload:
    """Return the same layers in another dtype; layers whose operator does not have it are left out.

    ``tf32`` is float32 that allows dense layers to round products so. Integers keep the bias and lose
    activation and residual: those belong behind the scaling of sums to the next layer's integers, which
    these are without (see `tvmconv.problem.quantized` for those with).
    """
    wanted = "float32" if dtype == TF32 else dtype

    def turned(layer: Layer) -> Layer:
        spec = replace(layer.spec.strict, quantized=None)
        if "int" in dtype:
            spec = replace(spec.core, bias=spec.bias)
        tf32 = dtype == TF32 and spec.op == "conv2d"
        return replace(layer, spec=replace(spec, dtype=wanted, tf32=tf32))

    kept = [layer for layer in workload.entries if wanted in OP_DTYPES[layer.spec.op]]
    sequence = [layer for layer in workload.sequence if wanted in OP_DTYPES[layer.spec.op]]
    return Workload(
        f"{workload.name}:{dtype}",
        f"{workload.description}, {dtype}",
        counted(turned(layer) for layer in kept),
        tuple(turned(layer) for layer in sequence),
    )


def _from_file(path: Path) -> Workload:
    layers: list[Layer] = []
    known: dict[str, Layer] = {}  # a list may name a layer as often as its network has it
    try:
        # Some editors begin a file with a byte-order mark.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a list of spec keys: it is not text, {error}.") from error
    for number, line in enumerate(lines, start=1):
        key = line.partition("#")[0].strip()
        if not key:
            continue
        if key not in known:
            try:
                known[key] = Layer(key, ConvSpec.from_key(key))
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from error
        layers.append(known[key])
    if not layers:
        raise ValueError(f"{path} has no spec keys. Write one a line; # begins a comment.")
    return Workload(path.stem, f"the keys in {path}", counted(layers))


def _edge_cases() -> Workload:
    layers = tuple(Layer(name, spec, tags=tags) for name, spec, tags in EDGE_CASES)
    return Workload("edge_cases", "small problems of every legal kind, for tests", layers)


_NETWORKS = (
    branched_networks.inception_v3,
    branched_networks.yolov8n,
    dense_networks.convnext_tiny,
    dense_networks.densenet121,
    dense_networks.resnet18,
    dense_networks.resnet50,
    dense_networks.vgg16,
    mobile_networks.efficientnet_b0,
    mobile_networks.mobilenet_v1,
    mobile_networks.mobilenet_v2,
    mobile_networks.mobilenet_v3_large,
    mobile_networks.mobilenet_v3_small,
)
_WORKLOADS: dict[str, Callable[[], Workload]] = {
    "edge_cases": cache(_edge_cases),
    "found_slow": cache(found_slow.found_slow),
    **{network.__name__: cache(network) for network in _NETWORKS},
}
