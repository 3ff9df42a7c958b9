"""oneDNN through PyTorch, channels last, which it likes best."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from tvmconv.measuring.peers.contender import Array, Prepared, from_nchw, oihw, padded, to_nchw
from tvmconv.problem.spec import ConvSpec

NAME = "onednn"
PACKAGES = ("torch",)
DTYPES = ("float32",)


def prepare(spec: ConvSpec, data: Array, filter: Array, threads: int) -> Prepared:
    """The faster of PyTorch's operator and oneDNN's with its own packed weights.

    The second is what PyTorch's compiler calls. Asymmetric padding is done in advance.
    """
    import torch

    torch.set_num_threads(threads)
    top, bottom, left, right = spec.pads
    pads = [top, left]
    if (top, left) != (bottom, right):
        data, pads = padded(spec, data), [0, 0]
    x = torch.from_numpy(to_nchw(data)).contiguous(memory_format=torch.channels_last)
    w = torch.from_numpy(oihw(spec, filter)).contiguous(memory_format=torch.channels_last)
    strides, dilations = list(spec.strides), list(spec.dilations)

    def direct() -> Any:
        with torch.inference_mode():
            return torch.nn.functional.conv2d(x, w, None, strides, pads, dilations, spec.groups)

    calls = [direct]
    packed = _packed(torch, x, w, strides, pads, dilations, spec.groups)
    if packed is not None:
        calls.append(packed)
    call = min(calls, key=_seconds)
    return Prepared(call, lambda: from_nchw(call().numpy()))


def _packed(
    torch: Any,
    x: Any,
    w: Any,
    strides: list[int],
    pads: list[int],
    dilations: list[int],
    groups: int,
) -> Callable[[], Any] | None:
    """The operator of oneDNN that PyTorch's compiler calls; None where this PyTorch has it not."""
    try:
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            w.to_mkldnn(), pads, strides, dilations, groups, list(x.shape)
        )
        operator = torch.ops.mkldnn._convolution_pointwise
        arguments: tuple[Any, ...] = (
            x,
            packed,
            None,
            pads,
            strides,
            dilations,
            groups,
            "none",
            [],
            "",
        )
        with torch.inference_mode():
            operator(*arguments)
    except (AttributeError, RuntimeError):
        return None

    def call() -> Any:
        with torch.inference_mode():
            return operator(*arguments)

    return call


def _seconds(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(7):
        begin = perf_counter()
        call()
        times.append(perf_counter() - begin)
    return sorted(times)[3]
