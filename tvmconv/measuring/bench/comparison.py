"""The question behind the project: what does a depthwise convolution save, in work and in time?"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from tvmconv import hardware, writing
from tvmconv.building.builder import Progress, build
from tvmconv.measuring.bench.bench import bench
from tvmconv.measuring.bench.rows import CpuRow
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.workloads import Layer
from tvmconv.runtime import load


@dataclass(frozen=True)
class Contender:
    """One way from the input to an output: one spec, or several one after the other."""

    name: str
    specs: tuple[ConvSpec, ...]

    @property
    def parameters(self) -> int:
        """Filter elements."""
        return sum(prod(spec.filter_shape) for spec in self.specs)

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return sum(spec.macs for spec in self.specs)

    @property
    def bytes(self) -> int:
        """Bytes read and written, each tensor once per spec that touches it."""
        return sum(spec.bytes for spec in self.specs)


@dataclass(frozen=True)
class Measured:
    """A contender and its time; limits name what bounds each of its specs."""

    contender: Contender
    microseconds: float
    limits: tuple[str, ...]


def contenders(
    input_shape: tuple[int, int, int, int], kernel: int, out_channels: int, stride: int = 1
) -> tuple[Contender, Contender, Contender]:
    """Return conv2d, depthwise_conv2d, and depthwise followed by 1x1, all SAME-padded float32 NHWC.

    The depthwise convolution alone keeps the input's channels: it is the first half of the third.
    """
    channels = input_shape[-1]
    dense = ConvSpec.conv2d(input_shape, (kernel, kernel, channels, out_channels), stride)
    depthwise = ConvSpec.depthwise_conv2d(input_shape, (kernel, kernel, channels, 1), stride)
    pointwise = ConvSpec.conv2d(depthwise.output_shape, (1, 1, channels, out_channels))
    return (
        Contender("conv2d", (dense,)),
        Contender("depthwise_conv2d", (depthwise,)),
        Contender("depthwise + 1x1", (depthwise, pointwise)),
    )


def measure(
    compared: tuple[Contender, ...],
    machine_name: str,
    threads: int,
    rounds: int,
    progress: Progress,
) -> list[Measured]:
    """Build every spec, check it, and time all of them interleaved; records are used as in `build`."""
    specs = list(dict.fromkeys(spec for contender in compared for spec in contender.specs))
    layers = [Layer(spec.key, spec) for spec in specs]
    with writing.scratch("tvmconv-compare-") as scratch:
        path = build(specs, machine_name, scratch / "compare.tvmconv", progress=progress)
        library = load(path, threads=threads)
        machine, _ = hardware.find_machine(library.variant.machine)
        rows = {row.key: row for row in bench(library, layers, machine, rounds, progress).rows}
    return [_sum(contender, rows) for contender in compared]


def _sum(contender: Contender, rows: dict[str, CpuRow]) -> Measured:
    own = [rows[spec.key] for spec in contender.specs]
    return Measured(
        contender, sum(row.microseconds for row in own), tuple(row.limit for row in own)
    )


def saving_that_arrives(dense: Measured, other: Measured) -> float:
    """Speedup over the dense convolution as a share of the reduction of multiply-adds (1.0: all)."""
    speedup = dense.microseconds / other.microseconds
    return speedup / (dense.contender.macs / other.contender.macs)
