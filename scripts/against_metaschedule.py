"""Tunes layers with stock MetaSchedule and with tvmconv, and compares: rate of trials, and what they find.

    .venv/bin/python scripts/against_metaschedule.py --trials 128 --json FILE --picture FILE.png

Both tune the same layer for the same machine with one thread, in processes of their own, one after the
other. Stock is ``tune_tir`` as it comes: its rules for the target, its evolutionary search, its local
builder and runner; the problem is topi's NHWC convolution with the same epilogue, the filter marked as
free to be laid out anew. Afterwards the best of both are timed in turn in one process. Stock's builder
needs one more package: pip install cloudpickle.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LAYERS = (
    "mobilenet_v2:block1.depthwise,block3.project,block8.expand,head",
    "resnet50:stage1.block1.conv3x3,stage1.block1.expand,stage3.block2.conv3x3,stage4.block1.expand",
)
ROUNDS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", action="append", metavar="WORKLOAD:NAME,..")
    parser.add_argument("--trials", type=int, default=128)
    parser.add_argument("--json", metavar="FILE", required=True)
    parser.add_argument("--picture", metavar="FILE")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--layer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender:
        CONTENDERS[args.contender](layer_of(args.layer), args.trials, Path(args.json))
        return
    named = [
        f"{group.partition(':')[0]}:{name}"
        for group in args.layers or LAYERS
        for name in group.partition(":")[2].split(",")
    ]
    rows = []
    for layer in named:
        rows.append(compare(layer, args.trials))
        print(line(rows[-1]), flush=True)
        Path(args.json).write_text(json.dumps(rows, indent=1))
    print(summary(rows))
    if args.picture:
        draw(rows, args.picture)


def compare(layer: str, trials: int) -> dict[str, Any]:
    """Both contenders on one layer, then their best in turn."""
    row: dict[str, Any] = {"layer": layer}
    with tempfile.TemporaryDirectory() as folder:
        for name in CONTENDERS:
            result = Path(folder) / f"{name}.json"
            command = [sys.executable, __file__, "--contender", name, "--layer", layer]
            command += ["--trials", str(trials), "--json", str(result)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(
                    f"{name} failed on {layer}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
                )
            row[name] = json.loads(result.read_text())
        row["in_turn"] = in_turn({name: row[name].pop("artifact") for name in CONTENDERS})
    return row


def layer_of(text: str) -> Any:
    from tvmconv.problem import workloads

    workload, _, name = text.partition(":")
    return next(each for each in workloads.resolve(workload).entries if each.name == name)


def stock(layer: Any, trials: int, result: Path) -> None:
    """MetaSchedule as it comes."""
    start = time.monotonic()
    import tvm
    from tvm.ir.utils import derived_object
    from tvm.s_tir import meta_schedule
    from tvm.s_tir.meta_schedule.arg_info import ArgInfo
    from tvm.s_tir.meta_schedule.builder.local_builder import default_build
    from tvm.s_tir.meta_schedule.measure_callback import MeasureCallback, PyMeasureCallback
    from tvm.s_tir.meta_schedule.tir_integration import compile_tir

    from tvmconv import hardware
    from tvmconv.building import toolchain

    machine, _ = hardware.find_machine("host")
    target = tvm.target.Target({**machine.target, "num-cores": 1})
    log: list[tuple[float, float | None]] = []

    @derived_object
    class Clock(PyMeasureCallback):  # type: ignore[misc] # untyped
        """Notes when each result came in."""

        def apply(self, *context: Any) -> None:
            now = time.monotonic() - start
            for each in context[-1]:
                seconds = statistics.median(map(float, each.run_secs)) if each.run_secs else None
                log.append((now, seconds))

    func = stock_problem(layer.spec)
    with tempfile.TemporaryDirectory() as folder:
        database = meta_schedule.tune_tir(
            func,
            target,
            folder,
            max_trials_global=trials,
            measure_callbacks=[Clock(), *MeasureCallback.create("default")],
            num_tuning_cores=2,
            seed=1,
        )
        total = time.monotonic() - start
        schedule = compile_tir(database, func, target)
        module = default_build(schedule.mod, target, None)
        infos = ArgInfo.from_entry_func(schedule.mod, remove_preproc=True)
        path = str(result.with_suffix(".so"))
        module.export_library(path, fcompile=toolchain.link)
    shapes = [[[int(extent) for extent in info.shape], str(info.dtype)] for info in infos]
    artifact = {"library": path, "symbol": "main", "shapes": shapes}
    result.write_text(json.dumps({"seconds": total, "trials": log, "artifact": artifact}))


def stock_problem(spec: Any) -> Any:
    """The layer as topi writes it, epilogue included."""
    from tvm import te, topi

    data = te.placeholder(spec.input_shape, spec.dtype, name="data")
    window = te.placeholder(spec.filter_shape, spec.dtype, name="filter")
    conv = topi.nn.conv2d_nhwc if spec.op == "conv2d" else topi.nn.depthwise_conv2d_nhwc
    out = conv(data, window, list(spec.strides), list(spec.pads), list(spec.dilations), spec.dtype)
    arguments = [data, window]
    if spec.bias:
        arguments.append(te.placeholder((spec.out_channels,), spec.dtype, name="bias"))
        out = topi.add(out, arguments[-1])
    if spec.residual:
        arguments.append(te.placeholder(spec.output_shape, spec.dtype, name="residual"))
        out = topi.add(out, arguments[-1])
    if spec.activation == "relu6":
        out = topi.clip(out, 0.0, 6.0)
    elif spec.activation == "relu":
        out = topi.nn.relu(out)
    func = te.create_prim_func([*arguments, out])
    return func.with_attr("layout_free_buffers", [1])


def ours(layer: Any, trials: int, result: Path) -> None:
    """`tvmconv tune` without any record to start from."""
    start = time.monotonic()
    from tvmconv import hardware
    from tvmconv.building import builder
    from tvmconv.records import log as records
    from tvmconv.records.choice import default_choice
    from tvmconv.tuning import plan, session

    records.default_directories = lambda: ()  # nothing is known: stock knows nothing either
    log: list[tuple[float, float | None]] = []

    class Clock:
        """Notes when each result came in."""

        def started(self, _session: Any) -> None: ...

        def measured(self, _session: Any, state: Any) -> None:
            log.append((time.monotonic() - start, state.search.trials[-1].seconds))

        def finished(self, _session: Any, _state: Any) -> None: ...

    with tempfile.TemporaryDirectory() as folder:
        work = plan.plan([layer], "host", trials, None, Path(folder))
        (outcome,) = session.run(work, Clock()).outcomes
    total = time.monotonic() - start
    machine, pack = hardware.find_machine("host")
    choice = default_choice(layer.spec, machine, pack)
    schedule, decisions = choice.schedule, choice.decisions
    if outcome.record is not None:
        schedule = hardware.find_schedule(outcome.record.schedule, pack)
        decisions = outcome.record.decisions
    function = schedule.apply(layer.spec, machine, decisions)
    path = result.with_suffix(".so")
    builder.compile_library({"main": function}, machine, path)
    spec = layer.spec
    shapes = [spec.input_shape, function.packed_shape or spec.filter_shape]
    shapes += [(spec.out_channels,)] if spec.bias else []
    shapes += [spec.output_shape] * (2 if spec.residual else 1)
    artifact = {
        "library": str(path),
        "symbol": "main",
        "shapes": [[list(shape), spec.dtype] for shape in shapes],
    }
    kept = {"record": outcome.record is not None, "default": log[0][1] if log else None}
    result.write_text(json.dumps({"seconds": total, "trials": log, "artifact": artifact, **kept}))


CONTENDERS = {"stock": stock, "tvmconv": ours}


def in_turn(artifacts: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Seconds of one call of each, medians over rounds, on random data in one process."""
    import numpy as np
    import tvm  # noqa: F401 - opens the runtime
    import tvm_ffi

    from tvmconv.measuring.roof import timing
    from tvmconv.runtime import arrays

    draw = np.random.default_rng(0)
    calls = {}
    for name, artifact in artifacts.items():
        buffers = []
        for shape, dtype in artifact["shapes"]:
            buffers.append(arrays.empty_aligned(tuple(shape), dtype))
            buffers[-1][...] = draw.standard_normal(shape)
        pointers = tuple(arrays.array_pointer(buffer) for buffer in buffers)
        module = tvm_ffi.load_module(artifact["library"])
        calls[name] = (module, artifact["symbol"], pointers, buffers)
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, (module, symbol, pointers, _) in calls.items():
            rounds[name] += timing.seconds(module, symbol, pointers, 1, 5.0)
    return {name: statistics.median(times) for name, times in rounds.items()}


def rate(result: dict[str, Any]) -> float:
    """Trials a minute, start of the process and end of the search included."""
    return 60 * len(result["trials"]) / result["seconds"]


def line(row: dict[str, Any]) -> str:
    times = row["in_turn"]
    return (
        f"{row['layer']}: trials a minute {rate(row['stock']):.0f} stock, {rate(row['tvmconv']):.0f} "
        f"tvmconv ({rate(row['tvmconv']) / rate(row['stock']):.1f} x); after "
        f"{len(row['stock']['trials'])} trials, {row['stock']['seconds']:.0f} s: "
        f"{1e6 * times['stock']:.1f} us; after {len(row['tvmconv']['trials'])}, "
        f"{row['tvmconv']['seconds']:.0f} s: {1e6 * times['tvmconv']:.1f} us "
        f"({times['stock'] / times['tvmconv']:.2f} x)"
    )


def summary(rows: list[dict[str, Any]]) -> str:
    faster = [row["in_turn"]["stock"] / row["in_turn"]["tvmconv"] for row in rows]
    rates = [rate(row["tvmconv"]) / rate(row["stock"]) for row in rows]
    mean = math.exp(statistics.mean(map(math.log, faster)))
    return (
        f"geometric means over {len(rows)} layers: {math.exp(statistics.mean(map(math.log, rates))):.1f} "
        f"times the trials a minute, kernels {mean:.2f} times as fast"
    )


def curve(row: dict[str, Any], name: str) -> tuple[list[float], list[float]]:
    """Seconds since the start, and the best time so far over the one that tvmconv ends with.

    Each contender's own clock is scaled so that its best is what it was in turn with the other's.
    """
    trials = [(at, seconds) for at, seconds in row[name]["trials"] if seconds]
    best = min(seconds for _, seconds in trials)
    scale = row["in_turn"][name] / best / row["in_turn"]["tvmconv"]
    so_far, values = math.inf, []
    for _, seconds in trials:
        so_far = min(so_far, seconds * scale)
        values.append(so_far)
    return [at for at, _ in trials], values


def draw(rows: list[dict[str, Any]], path: str) -> None:
    """Two diagrams a layer: best so far over trials, and over seconds."""
    from matplotlib.figure import Figure

    columns = 4
    height = -(-len(rows) // columns)
    figure = Figure(figsize=(4.2 * columns, 4.2 * height), layout="constrained")
    for at, row in enumerate(rows):
        top = 2 * (at // columns) * columns + at % columns + 1
        for shift, over in ((0, "trials"), (columns, "seconds")):
            axes = figure.add_subplot(2 * height, columns, top + shift)
            for name, colour in (("stock", "tab:orange"), ("tvmconv", "tab:blue")):
                seconds, values = curve(row, name)
                places = range(1, len(values) + 1) if over == "trials" else seconds
                axes.step(places, values, where="post", color=colour, label=name)
            axes.set_title(row["layer"] if over == "trials" else "", fontsize=8)
            axes.set_xlabel(over, fontsize=7)
            axes.set_yscale("log")
            axes.tick_params(labelsize=7, which="both")
            axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    figure.suptitle(
        "time of the best kernel so far over that of tvmconv's final one; lower is better"
    )
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
