"""Times kernels on a GPU in turn with PyTorch's; the second half of cuda_kit.py, which see.

NOT YET RUN on a machine with a GPU.

Ours computes the network's layer: convolution, bias, activation and residual. PyTorch's computes the
convolution alone: what it would need for the rest is not counted, and where TensorFlow pads the two sides
differently, its input is padded before the clock starts. ``cudnn`` is F.conv2d on channels_last tensors with
cudnn.benchmark on, and TF32 where the layer's spec allows it; ``native``, for depthwise layers, is PyTorch's
own kernel (cuDNN off) on the NCHW tensors that it is written for. All sides are captured in CUDA graphs of
several launches, whose replays are timed by events: no launch is waited for. Rounds alternate; a time is the
median of them. First all launches use the same tensors, which stay in L2 where they fit; then copies take
turns, so many that none is in L2 any more (`cuda_graphs.py`), as long as there is time for both.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cuda_graphs

from tvmconv.measuring.process import gpu_copies

COPYING = 7  # copies of 1 GiB of which the median counts


def race(folder: Path, sets: list, right: set[str], device: str, deadline: float) -> dict:
    """Rows for all layers that are right, as far as the time goes."""
    import torch

    import tvmconv

    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True
    rows, left_out, seen, warm = [], [], set(), []
    left = len({layer.spec.key for _, layers in sets for _, layer in layers} & right)
    cold = Cold.of(torch, device)
    for name, layers in sets:
        path = folder / f"{name}.tvmconv"
        if not path.exists():
            continue
        library = tvmconv.load(path, device=device)
        for network, layer in layers:
            key = layer.spec.key
            if key in seen or key not in right:
                continue
            seen.add(key)
            left -= 1
            if time.monotonic() > deadline:
                left_out.append(key)
                continue
            # Cold times only where there is time for the warm ones of all layers.
            until = deadline - left * (statistics.mean(warm) if warm else 0.0)
            rows.append(row(torch, network, layer, library[key], device, cold, until))
            warm.append(rows[-1].pop("warm_seconds"))
    return {
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "copy_bytes_per_second": copy_bandwidth(torch, device),
        "rows": rows,
        "left_out": left_out,
    }


@dataclass(frozen=True)
class Cold:
    """What cold times need: the size of L2, a tensor that displaces all in it, and a graph of its filling."""

    l2_bytes: int
    filler: Any
    filling: cuda_graphs.Captured

    @classmethod
    def of(cls, torch: Any, device: str) -> Cold:
        l2_bytes = torch.cuda.get_device_properties(device).L2_cache_size
        count = gpu_copies.flush_bytes(l2_bytes)
        filler = torch.empty(count, dtype=torch.uint8, device=device)
        return cls(l2_bytes, filler, cuda_graphs.flushing(torch, filler))


def row(
    torch: Any, network: str, layer: Any, kernel: Any, device: str, cold: Cold, until: float
) -> dict:
    """One layer: the times of all sides in microseconds, or why there are none.

    Under ``cold`` the cold ones, unless it is later than ``until`` when the warm ones are there; in
    ``warm_seconds`` how long those took.
    """
    begin = time.monotonic()
    spec = layer.spec
    # Read when a call is captured.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = spec.tf32
    about = {
        "network": network,
        "layer": layer.name,
        "key": spec.key,
        "class": "depthwise" if spec.op == "depthwise_conv2d" else "dense",
        "dtype": spec.precision,
        "batch": spec.batch,
        "bytes": spec.bytes,
        "flops": spec.flops,
        "schedule": kernel.schedule,
        "decisions": kernel.decisions,
        "record": kernel.entry.record,
    }
    made = []

    def warm() -> dict:
        copy = problem(torch, spec, kernel, device)
        made.append((copy, copy()))
        compare(torch, spec, made[0][1])
        return timed(torch, [made[0][1]], "warm")

    about.update(figures(warm))
    about["warm_seconds"] = time.monotonic() - begin
    if "failure" not in about and time.monotonic() < until:
        copy, first = made[0]
        about["cold"] = figures(lambda: cold_times(torch, spec, copy, first, cold))
    return about


def cold_times(
    torch: Any, spec: Any, copy: Callable[[], dict], first: dict, cold: Cold
) -> dict[str, list[float]]:
    wanted = gpu_copies.copies(spec, cold.l2_bytes, "cold")
    calls = [first, *(copy() for _ in range(wanted.count - 1))]
    return timed(torch, calls, "cold", cold if wanted.flush else None)


def timed(
    torch: Any, calls: list[dict], cache: str, flushed: Cold | None = None
) -> dict[str, list[float]]:
    """Microseconds of all sides, whose calls on several copies take turns."""
    filler, filling = (flushed.filler, flushed.filling) if flushed else (None, None)
    graphs = {
        name: cuda_graphs.captured(torch, [each[name] for each in calls], filler)
        for name in calls[0]
    }
    return cuda_graphs.timed(torch, graphs, cuda_graphs.ROUNDS[cache], filling)


def figures(measure: Callable[[], dict[str, list[float]]]) -> dict:
    """Medians, spreads and how many times as fast ours is; or the failure."""
    try:
        times = measure()
    except Exception as error:  # of one layer or library: the rest goes on
        return {"failure": f"{type(error).__name__}: {error}".splitlines()[0]}
    medians = {f"{name}_us": statistics.median(all_) for name, all_ in times.items()}
    spread = {f"{name}_spread": [min(all_), max(all_)] for name, all_ in times.items()}
    best = min(value for name, value in medians.items() if name != "ours_us")
    return {**medians, **spread, "ratio": best / medians["ours_us"]}


def problem(torch: Any, spec: Any, kernel: Any, device: str) -> Callable[[], dict]:
    """What makes, each time on tensors of its own, what each side calls for one convolution."""
    functional = torch.nn.functional
    dtype = getattr(torch, spec.dtype)

    def random(shape: tuple[int, ...], scale: float = 1.0) -> Any:
        return (scale * torch.randn(shape, device=device)).to(dtype)

    x = random(spec.input_shape)
    w = random(spec.filter_shape, 1 / math.sqrt(spec.reduction_length))
    out = torch.empty(spec.output_shape, dtype=dtype, device=device)
    # Zeros, so that values can be compared with a convolution alone.
    bias = torch.zeros(spec.bias_shape, dtype=dtype, device=device) if spec.bias else None
    residual = torch.zeros_like(out) if spec.residual else None

    image = x.permute(0, 3, 1, 2)  # NHWC in memory is PyTorch's channels_last
    top, bottom, left, right = spec.pads
    if (top, left) != (bottom, right):
        image = functional.pad(image, (left, right, top, bottom))
        top = left = 0
    image = image.contiguous(memory_format=torch.channels_last)
    height, width = spec.filter_shape[:2]
    if spec.op == "depthwise_conv2d":
        window = w.permute(2, 3, 0, 1).reshape(spec.out_channels, 1, height, width)
    else:
        window = w.permute(3, 2, 0, 1)
    arguments = (None, spec.strides, (top, left), spec.dilations, spec.groups)
    last = window.contiguous(memory_format=torch.channels_last)
    plain, first = image.contiguous(), window.contiguous()

    def native(*tensors: Any) -> Any:
        with torch.backends.cudnn.flags(enabled=False):
            return functional.conv2d(*tensors, *arguments)

    def copy() -> dict:
        addend = None if residual is None else residual.clone()
        bound = kernel.bind(w, bias)  # which copies both
        calls = {
            "ours": functools.partial(bound, x.clone(), addend, torch.empty_like(out)),
            "cudnn": functools.partial(functional.conv2d, image.clone(), last.clone(), *arguments),
        }
        if spec.op == "depthwise_conv2d":
            calls["native"] = functools.partial(native, plain.clone(), first.clone())
        return calls

    return copy


def compare(torch: Any, spec: Any, calls: dict) -> None:
    """Raise unless all sides give nearly the same, after the activation where that is known."""
    functional = torch.nn.functional
    activations = {
        None: lambda y: y,
        "relu": functional.relu,
        "relu6": functional.relu6,
        "silu": functional.silu,
        "sigmoid": torch.sigmoid,
        "hard_swish": functional.hardswish,
    }
    if spec.activation not in activations:
        return
    ours = calls["ours"]().float()
    for name, call in calls.items():
        if name == "ours":
            continue
        theirs = activations[spec.activation](call().float()).permute(0, 2, 3, 1)
        if theirs.shape != ours.shape:
            raise ValueError(f"{name} gives {tuple(theirs.shape)}, ours {tuple(ours.shape)}")
        error = (theirs - ours).abs().max().item()
        allowed = 1e-2 if spec.precision in ("float16", "tf32") else 1e-3
        if not error <= allowed:
            raise ValueError(f"{name} and ours differ by {error:.2g}: not the same problem")


def copy_bandwidth(torch: Any, device: str) -> float:
    """Bytes a second, read plus written, of a copy of 1 GiB: the roof that memory gives."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(COPYING):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return 2 * source.numel() / statistics.median(times)


def show(figures: dict) -> None:
    """Print the layers, and geometric means of how many times as fast ours is as the best other."""
    rows = [each for each in figures["rows"] if "ratio" in each]
    print(
        "\n| layer | dtype | batch | ours us | cuDNN us | PyTorch's own us | times as fast | cold: ours us | "
        "cuDNN us | PyTorch's own us | times as fast | schedule |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for each in rows:
        print(
            f"| {each['network']} {each['layer']} | {each['dtype']} | {each['batch']} | {cells(each)} | "
            f"{cells(each.get('cold', {}))} | {each['schedule']} |"
        )
    bandwidth = figures["copy_bytes_per_second"]
    print(
        "\n| kind | layers | times as fast, geometric mean | lowest | layers cold | times as fast | lowest | "
        "% of copy bandwidth, median | cold |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for kind in sorted({(each["class"], each["dtype"], each["batch"]) for each in rows}):
        of_kind = [each for each in rows if (each["class"], each["dtype"], each["batch"]) == kind]
        cold = [each for each in of_kind if "ratio" in each.get("cold", {})]
        rates = [each["bytes"] / each["ours_us"] for each in of_kind]
        cold_rates = [each["bytes"] / each["cold"]["ours_us"] for each in cold]
        shares = [
            f"{1e8 * statistics.median(each) / bandwidth:.0f}" if each else ""
            for each in (rates, cold_rates)
        ]
        print(
            f"| {kind[0]} {kind[1]}, batch {kind[2]} | {ratios(of_kind)} | "
            f"{ratios([each['cold'] for each in cold])} | {' | '.join(shares)} |"
        )
    for each in figures["rows"]:
        for what, part in (("", each), (" cold", each.get("cold", {}))):
            if "failure" in part:
                print(f"NOT TIMED{what} {each['key']}: {part['failure']}")
    print(
        f"\ncopy: {bandwidth / 1e9:.0f} GB/s; torch {figures['torch']}, cuDNN {figures['cudnn']}; left out "
        f"for lack of time: {len(figures['left_out'])}, cold {sum('cold' not in each for each in rows)}"
    )


def cells(times: dict) -> str:
    """Times of all sides and the ratio, empty where there are none."""
    found = [times.get(f"{name}_us") for name in ("ours", "cudnn", "native")]
    words = ["" if each is None else f"{each:.1f}" for each in found]
    return " | ".join([*words, f"{times['ratio']:.2f}" if "ratio" in times else ""])


def ratios(rows: list[dict]) -> str:
    """How many, their geometric mean, the lowest."""
    found = [each["ratio"] for each in rows]
    if not found:
        return "0 | | "
    return f"{len(found)} | {statistics.geometric_mean(found):.2f} | {min(found):.2f}"
