"""Captures PyTorch's and our calls in CUDA graphs and times their replays; part of cuda_kit.py, which see.

NOT YET RUN on a machine with a GPU.

A side is a list of calls that compute the same on tensors of their own. With one of them, data stays in L2
where it fits: warm. With as many as `tvmconv.measuring.process.gpu_copies` says, which take turns, none finds
its tensors there: cold. A turn of small layers begins with a flush, the same for all sides, whose time is
subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

LAUNCHES, LEAST_MS = 20, 2.0
ROUNDS = {"warm": 7, "cold": 3}


@dataclass(frozen=True)
class Captured:
    """A graph, and how many calls and flushes a replay has."""

    graph: Any
    calls: int
    flushes: int


def captured(torch: Any, calls: Sequence[Callable[[], Any]], flush: Any = None) -> Captured:
    """A CUDA graph of whole turns, `LAUNCHES` calls or more; ``flush`` is a tensor to fill before each turn.

    All is called before the capture. Raises where the replay computes otherwise.
    """
    turns = math.ceil(LAUNCHES / len(calls))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in (*calls[:1] * 2, *calls):
            before = call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    expected = before.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(turns):
            if flush is not None:
                flush.zero_()
            # All outputs of a turn are kept until it ends, so that none takes the memory of another.
            outputs = [call() for call in calls]
            after = outputs[-1]
            del outputs
    after.zero_()
    graph.replay()
    torch.cuda.synchronize()
    if not torch.allclose(after.float(), expected.float(), rtol=1e-2, atol=1e-2):
        raise ValueError("the replay of a CUDA graph computes other values than a call")
    return Captured(graph, turns * len(calls), 0 if flush is None else turns)


def flushing(torch: Any, flush: Any) -> Captured:
    """A graph of nothing but flushes."""
    flush.zero_()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(LAUNCHES):
            flush.zero_()
    return Captured(graph, LAUNCHES, 0)


def timed(
    torch: Any, sides: dict[str, Captured], rounds: int, flush: Captured | None = None
) -> dict[str, list[float]]:
    """Microseconds of one call on each side, in every round, without those of the flushes."""
    replays = {}
    for name, side in sides.items():
        milliseconds(torch, side.graph, 1)
        replays[name] = max(1, math.ceil(LEAST_MS / milliseconds(torch, side.graph, 1)))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        filling = 0.0
        if flush is not None:
            milliseconds(torch, flush.graph, 1)
            filling = milliseconds(torch, flush.graph, 1) / flush.calls
        for name, side in sides.items():
            replay = milliseconds(torch, side.graph, replays[name]) / replays[name]
            left = replay - side.flushes * filling
            if left <= 0:
                raise ValueError(
                    f"flushes take {1e3 * filling:.1f} us, a replay of {name} with {side.flushes} of them "
                    f"{1e3 * replay:.1f} us: something else uses this GPU"
                )
            times[name].append(1e3 * left / side.calls)
    return times


def milliseconds(torch: Any, graph: Any, replays: int) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(replays):
        graph.replay()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))
