"""MobileNetV2's convolutions on this machine: build, tune a little, check, run on a photograph, time."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from tvmconv import hardware
from tvmconv.building import builder
from tvmconv.checking import oracle
from tvmconv.commands import bench as bench_command
from tvmconv.commands import tune as tune_command
from tvmconv.commands import verify as verify_command
from tvmconv.commands.show import tables
from tvmconv.errors import TvmconvError
from tvmconv.hardware import host
from tvmconv.problem import workloads
from tvmconv.records import log
from tvmconv.runtime import Library, load
from tvmconv.tuning import plan

ROOT = Path(__file__).resolve().parent.parent
WORKLOAD = "mobilenet_v2"


def main() -> int:
    """Do everything, in the order a user would."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=1.0, help="of tuning (default: 1; 0: none)"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "quickstart")
    args = parser.parse_args()
    workload = workloads.resolve(WORKLOAD)
    machine = hardware.detect()
    heading("1. This machine")
    tables.show_facts(
        [
            ("machine", f"{machine.name} ({machine.description})"),
            ("CPU", host.cpu_name()),
            ("cores", host.available_cores()),
        ]
    )
    heading(f"2. Build the {len(workload.sequence)} convolutions of {WORKLOAD}")
    bundle = args.output / f"{WORKLOAD}.tvmconv"
    logs = [args.output / "tuning_logs", *log.default_directories()]
    build(workload, bundle, logs)
    if args.minutes > 0:
        heading(f"3. Tune for {args.minutes:g} minutes, where most can be gained")
        tune(workload, args)
        build(workload, bundle, logs)
    heading("4. Check every kernel against the oracle")
    library = load(bundle, threads=1)
    if not verified(library):
        return 1
    heading("5. Run the network's convolutions on a photograph")
    run_on_photograph(library, workload)
    heading("6. Time every layer against this machine's roof (one thread)")
    with tables.progress() as show:
        report = bench_command.bench_bundle(bundle, workload, threads=1, rounds=5, show=show)
    bench_command.show_report(report)
    print(f"\nThe kernels are in {bundle}; in Python: tvmconv.load({str(bundle)!r})")
    return 0


def heading(text: str) -> None:
    """Print a step's title."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def build(workload: workloads.Workload, bundle: Path, logs: list[Path]) -> None:
    """Build the bundle and say where its decisions come from."""
    started = time.monotonic()
    with tables.progress() as show:
        builder.build([layer.spec for layer in workload.entries], "host", bundle, logs, show)
    kernels = load(bundle).values()
    tuned = sum(kernel.entry.record is not None for kernel in kernels)
    print(
        f"{len(kernels)} distinct kernels in {time.monotonic() - started:.1f} s: {tuned} from tuning "
        f"records, {len(kernels) - tuned} with default decisions"
    )


def tune(workload: workloads.Workload, args: argparse.Namespace) -> None:
    """Tune the network within the time given."""
    directory = args.output / "tuning_logs"
    work = plan.plan(workload.entries, "host", None, args.minutes, directory)
    if tune_command.tune(work).interrupted:
        raise KeyboardInterrupt


def verified(library: Library) -> bool:
    """Check all kernels on random data; print what is wrong."""
    results = [verify_command.check(library[key]) for key in library]
    for result in results:
        if result.failure:
            print(f"WRONG {result.key}: {result.failure}")
    right = sum(not result.failure for result in results)
    print(f"{right} of {len(results)} kernels are right")
    return right == len(results)


def run_on_photograph(library: Library, workload: workloads.Workload) -> None:
    """Send a photograph through all layers, ours and the oracle's, with the same random weights.

    Weights are drawn as He et al. 2015 do, so that the signal neither dies nor explodes.
    """
    from skimage import data, transform

    photo = transform.resize(data.astronaut(), (224, 224), anti_aliasing=True)
    image = (photo[None] * 2 - 1).astype(np.float32)
    draw = np.random.default_rng(0)
    ours, exact, microseconds = image, image.astype(np.float64), 0.0
    block_inputs = {"ours": ours, "exact": exact}
    for layer in workload.sequence:
        spec = layer.spec
        weights = draw.normal(0, np.sqrt(2 / spec.reduction_length), spec.filter_shape)
        weights, bias = weights.astype(np.float32), np.zeros(spec.bias_shape, np.float32)
        if not layer.name.endswith((".depthwise", ".project")) or layer.name == "block1.depthwise":
            block_inputs = {"ours": ours, "exact": exact}
        bound = library[spec.key].bind(weights, bias)
        residual = block_inputs["ours"] if spec.residual else None
        started = time.perf_counter()
        result = bound(ours, residual)
        microseconds += (time.perf_counter() - started) * 1e6
        extra = {"residual": block_inputs["exact"]} if spec.residual else {}
        exact = oracle.conv(spec, exact, weights, bias, **extra)
        ours = result
    error = float(np.max(np.abs(ours - exact)) / np.max(np.abs(exact)))
    print(
        f"{len(workload.sequence)} layers, first run of each: {microseconds / 1000:.2f} ms; output "
        f"{ours.shape}, largest difference from the float64 oracle {error:.1e} of its largest value"
    )
    if error > 1e-4:
        raise TvmconvError(f"the network's output is off by {error:.1e}: please report this")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except TvmconvError as error:
        sys.exit(f"error: {error}")
