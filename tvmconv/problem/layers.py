"""Layers and lists of layers, and a network that collects its own while an image passes through it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from tvmconv.problem.spec import ConvSpec

# An image on its way through a network: (height, width, channels).
Image = tuple[int, int, int]


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


def counted(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Equal layers once, under the name of the first, with how many there are."""
    layers = tuple(layers)
    counts: Counter[ConvSpec] = Counter()
    for layer in layers:
        counts[layer.spec] += layer.count
    first = {layer.spec: layer for layer in reversed(layers)}
    return tuple(replace(first[spec], count=count) for spec, count in counts.items())


class Network:
    """Collects the layers of a network while an image passes through it.

    Branches and pools set ``image`` themselves.
    """

    def __init__(self, image: Image = (224, 224, 3)) -> None:
        self.image = image
        self.layers: list[Layer] = []

    def workload(self, name: str, description: str) -> Workload:
        """All layers so far; ``description`` has their number for {}."""
        sequence = tuple(self.layers)
        return Workload(name, description.format(len(sequence)), counted(sequence), sequence)

    def conv(
        self,
        name: str,
        kernel: int | tuple[int, int],
        channels: int,
        stride: int = 1,
        activation: str | None = None,
        residual: bool = False,
        pad: int | str = "SAME",
    ) -> None:
        """Append a conv2d; ``pad`` is SAME, VALID, or so many pixels on each side."""
        padding = [(0, 0), (pad, pad), (pad, pad), (0, 0)] if isinstance(pad, int) else pad
        high, wide = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        self._append(
            name,
            ConvSpec.conv2d(
                (1, *self.image),
                (high, wide, self.image[2], channels),
                stride,
                padding,
                bias=True,
                activation=activation,
                residual=residual,
            ),
        )

    def depthwise(self, name: str, kernel: int, stride: int, activation: str | None) -> None:
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
        self, name: str, kernel: int, stride: int, expanded: int, channels: int, activation: str
    ) -> None:
        """Append MobileNetV2's block: expand, depthwise, linear projection, residual if it fits."""
        in_channels = self.image[2]
        if expanded != in_channels:
            self.conv(f"{name}.expand", 1, expanded, activation=activation)
        self.depthwise(f"{name}.depthwise", kernel, stride, activation)
        adds_input = stride == 1 and channels == in_channels
        self.conv(f"{name}.project", 1, channels, residual=adds_input)

    def pool(self, kernel: int, stride: int, same: bool = False) -> None:
        """Pass the image through a pool, VALID or SAME."""
        height, width, channels = self.image
        cut = 1 if same else kernel
        self.image = ((height - cut) // stride + 1, (width - cut) // stride + 1, channels)

    def _append(self, name: str, spec: ConvSpec) -> None:
        self.layers.append(Layer(name, spec))
        self.image = (spec.out_height, spec.out_width, spec.out_channels)
