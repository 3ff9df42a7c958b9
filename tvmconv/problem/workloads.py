"""Named lists of convolutions that tests, tuning and benchmarks share; and a user's own lists.

Networks are batch 1, 224x224, float32, NHWC, with the epilogue that runs at inference: batch
normalisation folded into the filter and a bias, then activation and residual. Layers that are equal
appear once, under the name of the first, with the number of times the network has them.
"""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tvmconv.errors import UnknownNameError
from tvmconv.problem.edge_cases import EDGE_CASES
from tvmconv.problem.rules import OP_DTYPES, TF32
from tvmconv.problem.spec import ConvSpec

# What may stand behind a workload's name.
_PRECISIONS = (*OP_DTYPES["conv2d"], TF32)
# An image on its way through a network: (height, width, channels).
_Image = tuple[int, int, int]


@dataclass(frozen=True)
class Layer:
    """A convolution with a label for people, its count in the network, and tags to filter by."""

    name: str
    spec: ConvSpec
    count: int = 1
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workload:
    """A named list of layers.

    Attributes:
        name, description: for people.
        entries: the layers to build, tune and time; no two have the same spec.
        sequence: of a network, every layer in the order in which an image passes them; else empty.
    """

    name: str
    description: str
    entries: tuple[Layer, ...]
    sequence: tuple[Layer, ...] = ()


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
            spec = replace(spec, activation=None, residual=False)
        tf32 = dtype == TF32 and spec.op == "conv2d"
        return replace(layer, spec=replace(spec, dtype=wanted, tf32=tf32))

    kept = [layer for layer in workload.entries if wanted in OP_DTYPES[layer.spec.op]]
    sequence = [layer for layer in workload.sequence if wanted in OP_DTYPES[layer.spec.op]]
    return Workload(
        f"{workload.name}:{dtype}",
        f"{workload.description}, {dtype}",
        _counted(turned(layer) for layer in kept),
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
    return Workload(path.stem, f"the keys in {path}", _counted(layers))


def _counted(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    layers = tuple(layers)
    counts: Counter[ConvSpec] = Counter()
    for layer in layers:
        counts[layer.spec] += layer.count
    first = {layer.spec: layer for layer in reversed(layers)}
    return tuple(replace(first[spec], count=count) for spec, count in counts.items())


class _Network:
    """Collects the layers of a network while an image passes through it."""

    def __init__(self) -> None:
        self.image: _Image = (224, 224, 3)
        self.layers: list[Layer] = []

    def conv(
        self,
        name: str,
        kernel: int,
        channels: int,
        stride: int = 1,
        activation: str | None = None,
        residual: bool = False,
        pad: int | None = None,
    ) -> None:
        """Append a conv2d; ``pad`` pixels on each side, or SAME when None."""
        padding = "SAME" if pad is None else [(0, 0), (pad, pad), (pad, pad), (0, 0)]
        self._append(
            name,
            ConvSpec.conv2d(
                (1, *self.image),
                (kernel, kernel, self.image[2], channels),
                stride,
                padding,
                bias=True,
                activation=activation,
                residual=residual,
            ),
        )

    def depthwise(self, name: str, kernel: int, stride: int, activation: str) -> None:
        """Append a SAME depthwise_conv2d with channel multiplier 1."""
        self._append(
            name,
            ConvSpec.depthwise_conv2d(
                (1, *self.image),
                (kernel, kernel, self.image[2], 1),
                stride,
                bias=True,
                activation=activation,
            ),
        )

    def inverted_residual(
        self, name: str, kernel: int, stride: int, expansion: int, channels: int, activation: str
    ) -> None:
        """Append MobileNetV2's block: expand, depthwise, linear projection, residual if it fits."""
        in_channels = self.image[2]
        if expansion != 1:
            self.conv(f"{name}.expand", 1, expansion * in_channels, activation=activation)
        self.depthwise(f"{name}.depthwise", kernel, stride, activation)
        adds_input = stride == 1 and channels == in_channels
        self.conv(f"{name}.project", 1, channels, residual=adds_input)

    def _append(self, name: str, spec: ConvSpec) -> None:
        self.layers.append(Layer(name, spec))
        self.image = (spec.out_height, spec.out_width, spec.out_channels)


def _mobilenet_v1() -> Workload:
    # Howard et al. 2017, table 1: (output channels, stride) of the 13 separable blocks.
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    blocks += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    net = _Network()
    net.conv("stem", 3, 32, stride=2, activation="relu6")
    for i, (channels, stride) in enumerate(blocks, start=1):
        net.depthwise(f"block{i}.depthwise", 3, stride, "relu6")
        net.conv(f"block{i}.pointwise", 1, channels, activation="relu6")
    return Workload(
        "mobilenet_v1", "MobileNet V1 1.0, 27 layers", _counted(net.layers), tuple(net.layers)
    )


def _mobilenet_v2() -> Workload:
    # Sandler et al. 2018, table 2: expansion, channels, repeats, stride of the first repeat.
    stages = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    net = _Network()
    net.conv("stem", 3, 32, stride=2, activation="relu6")
    block = 0
    for expansion, channels, repeats, stride in stages:
        for repeat in range(repeats):
            block += 1
            first_stride = stride if repeat == 0 else 1
            net.inverted_residual(f"block{block}", 3, first_stride, expansion, channels, "relu6")
    net.conv("head", 1, 1280, activation="relu6")
    return Workload(
        "mobilenet_v2", "MobileNet V2 1.0, 52 layers", _counted(net.layers), tuple(net.layers)
    )


def _efficientnet_b0() -> Workload:
    # Tan and Le 2019, table 1: expansion, kernel, channels, repeats, stride of the first repeat.
    stages = [
        (1, 3, 16, 1, 1),
        (6, 3, 24, 2, 2),
        (6, 5, 40, 2, 2),
        (6, 3, 80, 3, 2),
        (6, 5, 112, 3, 1),
        (6, 5, 192, 4, 2),
        (6, 3, 320, 1, 1),
    ]
    net = _Network()
    net.conv("stem", 3, 32, stride=2, activation="silu")
    block = 0
    for expansion, kernel, channels, repeats, stride in stages:
        for repeat in range(repeats):
            block += 1
            first_stride = stride if repeat == 0 else 1
            net.inverted_residual(
                f"block{block}", kernel, first_stride, expansion, channels, "silu"
            )
    net.conv("head", 1, 1280, activation="silu")
    description = "EfficientNet-B0, 49 layers; without squeeze-and-excitation, which is not spatial"
    return Workload("efficientnet_b0", description, _counted(net.layers), tuple(net.layers))


def _resnet50() -> Workload:
    # He et al. 2015, table 1: width and number of bottleneck blocks per stage. Version 1.5: the
    # stride is on the 3x3. Strided layers pad like TensorFlow's official models (and PyTorch), by
    # kernel // 2 on each side, where SAME would put the odd pixel at the bottom right.
    stages = [(64, 3), (128, 4), (256, 6), (512, 3)]
    net = _Network()
    net.conv("stem", 7, 64, stride=2, activation="relu", pad=3)
    net.image = (56, 56, 64)  # after the 3x3 max-pooling with stride 2
    for i, (width, repeats) in enumerate(stages, start=1):
        for repeat in range(repeats):
            name = f"stage{i}.block{repeat + 1}"
            stride = 2 if i > 1 and repeat == 0 else 1
            block_input = net.image
            if repeat == 0:
                net.conv(f"{name}.downsample", 1, 4 * width, stride, pad=0)
                net.image = block_input
            net.conv(f"{name}.reduce", 1, width, activation="relu")
            net.conv(f"{name}.conv3x3", 3, width, stride, activation="relu", pad=1)
            net.conv(f"{name}.expand", 1, 4 * width, activation="relu", residual=True)
    return Workload(
        "resnet50", "ResNet-50 v1.5, 53 layers", _counted(net.layers), tuple(net.layers)
    )


def _edge_cases() -> Workload:
    layers = tuple(Layer(name, spec, tags=tags) for name, spec, tags in EDGE_CASES)
    return Workload("edge_cases", "small problems of every legal kind, for tests", layers)


_WORKLOADS: dict[str, Callable[[], Workload]] = {
    "edge_cases": cache(_edge_cases),
    "efficientnet_b0": cache(_efficientnet_b0),
    "mobilenet_v1": cache(_mobilenet_v1),
    "mobilenet_v2": cache(_mobilenet_v2),
    "resnet50": cache(_resnet50),
}
