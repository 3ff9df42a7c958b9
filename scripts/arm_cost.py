"""What layers cost on an ARM core, without one: instructions executed per call, counted in an emulator.

    scripts/arm_cost                                   the five layers that docs/arm.md compares
    scripts/arm_cost mobilenet_v2 --machine raspberry-pi-5
    scripts/arm_cost --peers xnnpack,ncnn              beside other libraries, on the emulated board

Every kernel is compiled for the machine, run on random data and checked against the float64 oracle. "work"
is the layer's multiply-adds / lanes, the vector multiply-adds that a direct convolution needs, over all
instructions executed; "FMA" the multiply-adds among these. Taps in the padding count as work, though
they are left out. With llvm-mca, "cycles" are predicted (tvmconv/measuring/simulate/cycles.py says how far to
trust them), and "of FMA bound" is the time that the work alone would take over them.

With --peers all kernels are counted on the emulated board instead, ours too, with what calling them from
Python takes; scripts/peers_cost.py says how.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import peers_cost

from tvmconv import hardware
from tvmconv.checking import oracle
from tvmconv.commands.show import tables
from tvmconv.errors import MissingToolError, TvmconvError
from tvmconv.measuring.simulate import cycles, emulator, kernel
from tvmconv.problem import workloads
from tvmconv.problem.spec import ConvSpec
from tvmconv.records.choice import choose

FIVE = {
    "1x1 28x28x128 -> 64": ConvSpec.conv2d((1, 28, 28, 128), (1, 1, 128, 64)),
    "3x3 28x28x32 -> 32": ConvSpec.conv2d((1, 28, 28, 32), (3, 3, 32, 32)),
    "depthwise 3x3 28x28x192": ConvSpec.depthwise_conv2d((1, 28, 28, 192), (3, 3, 192, 1)),
    "depthwise 3x3 28x28x192, stride 2": ConvSpec.depthwise_conv2d(
        (1, 28, 28, 192), (3, 3, 192, 1), strides=2
    ),
    "depthwise 5x5 14x14x96": ConvSpec.depthwise_conv2d((1, 14, 14, 96), (5, 5, 96, 1)),
}


@dataclass(frozen=True)
class Cost:
    """One layer's: how often it occurs, the schedule that computed it, and what was counted."""

    name: str
    spec: ConvSpec
    count: int
    schedule: str
    decisions: str
    instructions: int
    multiply_adds: int
    lanes: int
    fma_ports: int
    cycles: float | None

    @property
    def work(self) -> float:
        """Vector multiply-adds of a direct convolution over instructions."""
        return self.spec.macs / self.lanes / self.instructions

    def row(self) -> tuple[object, ...]:
        """Cells of the table of layers."""
        cells = (self.name, self.schedule, self.decisions, self.instructions, percent(self.work),
                 percent(self.multiply_adds / self.instructions))  # fmt: skip
        if self.cycles is None:
            return cells
        bound = self.spec.macs / self.lanes / self.fma_ports
        return (*cells, round(self.cycles), percent(bound / self.cycles))


def kind(spec: ConvSpec) -> str:
    """The row of the table of means."""
    if spec.op == "depthwise_conv2d":
        size = f"{spec.kernel_height}x{spec.kernel_width}"
        return f"depthwise {size}, stride {spec.strides[0]}"
    size = f"{spec.kernel_height}x{spec.kernel_width}"
    return f"{size}, stride {spec.strides[0]}" if spec.strides != (1, 1) else size


def layers(wanted: str | None) -> Iterator[tuple[str, ConvSpec, int]]:
    """Names, specs and how often each occurs."""
    if wanted is None:
        yield from ((name, spec, 1) for name, spec in FIVE.items())
        return
    for entry in workloads.resolve(wanted).entries:
        if not entry.spec.is_empty:
            yield entry.name, entry.spec, entry.count


def measure(
    name: str,
    spec: ConvSpec,
    count: int,
    machine_name: str,
    logs: list[Path] | None,
    winograd: bool,
) -> Cost:
    """Compile, run, check and count one layer."""
    machine, pack = hardware.find_machine(machine_name)
    choice = choose(spec, machine, pack, logs, winograd)
    function = choice.schedule.apply(spec, machine, choice.decisions)
    arguments = oracle.random_arguments(spec, seed=0)
    counts, out = kernel.simulate(function, machine, spec, arguments)
    oracle.assert_close(spec, oracle.conv(spec, **arguments), out)
    decisions = " ".join(f"{k}={v}" for k, v in choice.decisions.items())
    return Cost(
        name,
        spec,
        count,
        choice.schedule.name,
        decisions,
        counts.instructions,
        counts.count(emulator.is_multiply_add),
        machine.cpu.lanes(spec.accumulator_dtype),
        machine.cpu.fma_ports,
        cycles.predict(counts, machine) if predicts() else None,
    )


@functools.cache
def predicts() -> bool:
    """Whether llvm-mca is here; says once where it is not."""
    try:
        cycles.tools()
    except MissingToolError as error:
        print(f"cycles are not predicted: {error}", file=sys.stderr)
        return False
    return True


def means(costs: list[Cost]) -> list[tuple[object, ...]]:
    """Rows of geometric means by kind, and of all together weighted by what they cost."""
    by_kind: dict[str, list[Cost]] = defaultdict(list)
    for cost in costs:
        by_kind[kind(cost.spec)].append(cost)
    rows: list[tuple[object, ...]] = []
    for name, several in by_kind.items():
        shares = [cost.work for cost in several]
        mean = math.exp(sum(map(math.log, shares)) / len(shares))
        rows.append(
            (name, len(several), percent(mean), f"{percent(min(shares))} to {percent(max(shares))}")
        )
    total = sum(cost.instructions * cost.count for cost in costs)
    needed = sum(cost.work * cost.instructions * cost.count for cost in costs)
    rows.append(
        ("all, as often as they occur", sum(c.count for c in costs), percent(needed / total), "")
    )
    return rows


def percent(share: float) -> str:
    """With one decimal."""
    return f"{100 * share:.1f} %"


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "workload", nargs="?", help="a network, a key, a file of keys; default: five layers"
    )
    parser.add_argument("--machine", default="cortex-a72", help="default: cortex-a72")
    parser.add_argument(
        "--logs", type=Path, help="tuning records; default: yours and those shipped"
    )
    parser.add_argument(
        "--untuned", action="store_true", help="default decisions, whatever the records say"
    )
    parser.add_argument(
        "--no-winograd", action="store_true", help="evaluate the defining sum everywhere"
    )
    parser.add_argument(
        "--peers", default="", metavar="A,B", help=f"count too: {', '.join(peers_cost.COUNTABLE)}"
    )
    args = parser.parse_args()
    libraries = [name for name in args.peers.split(",") if name]
    unknown = sorted(set(libraries) - set(peers_cost.COUNTABLE))
    if unknown:
        parser.error(f"--peers has {unknown[0]!r}; known: {', '.join(peers_cost.COUNTABLE)}")
    logs = [] if args.untuned else [args.logs] if args.logs else None
    costs = []
    try:
        wanted = list(layers(args.workload))
        if libraries:
            direct = not args.no_winograd
            peers_cost.show(wanted, args.machine, libraries, logs, direct, kind)
            return 0
        for done, (name, spec, count) in enumerate(wanted):
            print(f"{done + 1} of {len(wanted)}: {name}", file=sys.stderr)
            costs.append(measure(name, spec, count, args.machine, logs, not args.no_winograd))
    except TvmconvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    columns = ("layer", "schedule", "decisions", "instructions", "work", "FMA")
    predicted = ("cycles", "of FMA bound") if predicts() else ()
    tables.show_table((*columns, *predicted), [cost.row() for cost in costs])
    print()
    tables.show_table(("kind", "layers", "work, geometric mean", "range"), means(costs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
