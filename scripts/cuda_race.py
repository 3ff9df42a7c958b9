"""Times kernels on a GPU in turn with PyTorch's; the second half of cuda_kit.py, which see.

NOT YET RUN on a machine with a GPU.

Ours computes the network's layer: convolution, bias, activation and residual. PyTorch's computes the
convolution alone: what it would need for the rest is not counted, and where TensorFlow pads the two sides
differently, its input is padded before the clock starts. ``cudnn`` is F.conv2d on channels_last tensors with
cudnn.benchmark on, and TF32 where the layer's spec allows it; ``native``, for depthwise layers, is PyTorch's
own kernel (cuDNN off) on the NCHW tensors that it is written for. Both sides are captured in CUDA graphs of
several launches, whose replays are timed by events: data stays in L2 where it fits, and no launch is waited
for. Rounds alternate; a time is the median of them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LAUNCHES, ROUNDS, LEAST_MS = 20, 7, 2.0


def race(folder: Path, sets: list, right: set[str], device: str, deadline: float) -> dict:
    """Rows for all layers that are right, as far as the time goes."""
    import torch

    import tvmconv

    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True
    rows, left_out, seen = [], [], set()
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
            if time.monotonic() > deadline:
                left_out.append(key)
                continue
            rows.append(row(torch, network, layer, library[key], device))
    return {
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "copy_bytes_per_second": copy_bandwidth(torch, device),
        "rows": rows,
        "left_out": left_out,
    }


def row(torch: Any, network: str, layer: Any, kernel: Any, device: str) -> dict:
    """One layer: the times of all sides in microseconds, or why there are none."""
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
    try:
        calls = sides(torch, spec, kernel, device)
        graphs = {name: captured(torch, call) for name, call in calls.items()}
        times = timed(torch, graphs)
    except Exception as error:  # of one layer or library: the rest goes on
        return {**about, "failure": f"{type(error).__name__}: {error}".splitlines()[0]}
    medians = {f"{name}_us": statistics.median(all_) for name, all_ in times.items()}
    spread = {f"{name}_spread": [min(all_), max(all_)] for name, all_ in times.items()}
    best = min(value for name, value in medians.items() if name != "ours_us")
    return {**about, **medians, **spread, "ratio": best / medians["ours_us"]}


def sides(torch: Any, spec: Any, kernel: Any, device: str) -> dict:
    """What each side calls once for one convolution; raises where they do not compute the same."""
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
    bound = kernel.bind(w, bias)

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
    calls = {
        "ours": lambda: bound(x, residual, out),
        "cudnn": lambda: functional.conv2d(image, last, *arguments),
    }
    if spec.op == "depthwise_conv2d":
        plain, first = image.contiguous(), window.contiguous()

        def native() -> Any:
            with torch.backends.cudnn.flags(enabled=False):
                return functional.conv2d(plain, first, *arguments)

        calls["native"] = native
    compare(torch, spec, calls)
    return calls


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


def captured(torch: Any, call: Callable[[], Any]) -> Any:
    """A CUDA graph of `LAUNCHES` calls, after three outside; raises where the replay computes otherwise."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            before = call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    expected = before.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(LAUNCHES):
            after = call()
    after.zero_()
    graph.replay()
    torch.cuda.synchronize()
    if not torch.allclose(after.float(), expected.float(), rtol=1e-2, atol=1e-2):
        raise ValueError("the replay of a CUDA graph computes other values than a call")
    return graph


def timed(torch: Any, graphs: dict) -> dict[str, list[float]]:
    """Microseconds of one call on each side, in every round."""
    replays = {}
    for name, graph in graphs.items():
        milliseconds(torch, graph, 1)
        replays[name] = max(1, math.ceil(LEAST_MS / milliseconds(torch, graph, 1)))
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(ROUNDS):
        for name, graph in graphs.items():
            count = replays[name]
            times[name].append(1e3 * milliseconds(torch, graph, count) / (count * LAUNCHES))
    return times


def milliseconds(torch: Any, graph: Any, replays: int) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(replays):
        graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def copy_bandwidth(torch: Any, device: str) -> float:
    """Bytes a second, read plus written, of a copy of 1 GiB: the roof that memory gives."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(ROUNDS):
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
        "\n| layer | dtype | batch | ours us | cuDNN us | PyTorch's own us | times as fast | schedule |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for each in rows:
        native = f"{each['native_us']:.1f}" if "native_us" in each else ""
        print(
            f"| {each['network']} {each['layer']} | {each['dtype']} | {each['batch']} | "
            f"{each['ours_us']:.1f} | {each['cudnn_us']:.1f} | {native} | {each['ratio']:.2f} | "
            f"{each['schedule']} |"
        )
    bandwidth = figures["copy_bytes_per_second"]
    print(
        "\n| kind | layers | times as fast, geometric mean | lowest | % of copy bandwidth, median |"
    )
    print("|---|---|---|---|---|")
    for kind in sorted({(each["class"], each["dtype"], each["batch"]) for each in rows}):
        of_kind = [each for each in rows if (each["class"], each["dtype"], each["batch"]) == kind]
        ratios = [each["ratio"] for each in of_kind]
        shares = [100e6 * each["bytes"] / each["ours_us"] / bandwidth for each in of_kind]
        print(
            f"| {kind[0]} {kind[1]}, batch {kind[2]} | {len(of_kind)} | "
            f"{statistics.geometric_mean(ratios):.2f} | {min(ratios):.2f} | "
            f"{statistics.median(shares):.0f} |"
        )
    for each in figures["rows"]:
        if "failure" in each:
            print(f"NOT TIMED {each['key']}: {each['failure']}")
    print(
        f"\ncopy: {bandwidth / 1e9:.0f} GB/s; torch {figures['torch']}, cuDNN {figures['cudnn']}; "
        f"left out for lack of time: {len(figures['left_out'])}"
    )
