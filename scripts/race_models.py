"""Whole models against LiteRT, or ONNX Runtime: what both compute, then their times, in turn.

    .venv/bin/python scripts/race_models.py MODEL.tflite MODEL.onnx ... --threads 1,2 --json FILE

Each contender runs in a process of its own, on as many cores as it has threads, and is stopped when it is
not its turn. A round's time is the fastest call of 100 ms: where other processes want the core, most calls of
more than a millisecond hold one of their time slices, of 4 ms, and the longer call the more often. Shown are
the median, the smallest and the largest of the rounds, and the median of the rounds' ratios. Needs the
package ai-edge-litert or onnxruntime.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tvmconv
from tvmconv.commands.show import tables
from tvmconv.errors import TvmconvError
from tvmconv.hardware import host
from tvmconv.measuring.peers.library_timer import alone, version
from tvmconv.measuring.peers.race import environment
from tvmconv.measuring.process.candidate import Failure
from tvmconv.measuring.process.worker import Worker

OURS, LITERT, ONNXRUNTIME = "tvmconv", "LiteRT", "ONNX Runtime"
PEERS = {".tflite": LITERT, ".onnx": ONNXRUNTIME}
PACKAGES = {LITERT: "ai-edge-litert", ONNXRUNTIME: "onnxruntime"}
# Of the largest output, on random images; XNNPACK is up to 3e-4 from LiteRT's own reference kernels.
CLOSE = 1e-3
SLICE_MS = 100.0
TIMEOUT_SECONDS = 120.0


@dataclasses.dataclass(frozen=True)
class Result:
    """One model's race.

    Attributes:
        model, threads: what ran.
        difference: the largest between the outputs of both, in parts of the largest output.
        seconds: by contender, the fastest call of each round.
    """

    model: str
    threads: int
    difference: float
    seconds: dict[str, list[float]]

    @property
    def peer(self) -> str:
        """Who it runs against."""
        return next(name for name in self.seconds if name != OURS)

    @property
    def ratio(self) -> float:
        """How many times as long as ours the peer takes: the median of the rounds' ratios."""
        pairs = zip(self.seconds[self.peer], self.seconds[OURS], strict=True)
        return statistics.median(theirs / mine for theirs, mine in pairs)


class ModelTimer:
    """One contender with one model, in its own process."""

    def __init__(self, name: str, path: str, threads: int) -> None:
        alone(threads)
        make = {OURS: _ours, LITERT: _litert, ONNXRUNTIME: _onnxruntime}[name]
        self._call, self._outputs = make(path, threads)

    def outputs(self) -> list[Any]:
        """What the model computes on random images."""
        self._call()
        return self._outputs()

    def seconds(self) -> float:
        """The fastest call of a round."""
        least, begin = float("inf"), time.perf_counter()
        while (before := time.perf_counter()) - begin < SLICE_MS / 1e3:
            self._call()
            least = min(least, time.perf_counter() - before)
        return least


Contender = tuple[Callable[[], object], Callable[[], list[Any]]]


def _inputs(shapes: Sequence[Sequence[int]]) -> list[Any]:
    """Random images from 0 to 1, the same for both."""
    draw = np.random.default_rng(0)
    return [draw.uniform(0, 1, shape).astype(np.float32) for shape in shapes]


def _ours(path: str, threads: int) -> Contender:
    model = tvmconv.load(path, threads=threads)
    inputs = _inputs([each.shape for each in model.inputs])
    results = tuple(np.empty(each.shape, each.dtype) for each in model.outputs)
    out = results if len(results) > 1 else results[0]
    return lambda: model(*inputs, out=out), lambda: list(results)


def _litert(path: str, threads: int) -> Contender:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()
    for each, array in zip(details, _inputs([d["shape"] for d in details]), strict=True):
        interpreter.set_tensor(each["index"], array)
    made = [each["index"] for each in interpreter.get_output_details()]
    return interpreter.invoke, lambda: [interpreter.get_tensor(index) for index in made]


def _onnxruntime(path: str, threads: int) -> Contender:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given, binding = session.get_inputs(), session.io_binding()
    for each, array in zip(given, _inputs([each.shape for each in given]), strict=True):
        binding.bind_cpu_input(each.name, array)
    for each in session.get_outputs():
        binding.bind_output(each.name)
    return lambda: session.run_with_iobinding(binding), binding.copy_outputs_to_cpu


def require(model: Path) -> str:
    """Who a model runs against; TvmconvError where that is nobody, or not installed."""
    peer = PEERS.get(model.suffix)
    if peer is None:
        raise TvmconvError(f"{model} is no file of {' or '.join(PEERS)}")
    if version(PACKAGES[peer]) is None:
        raise TvmconvError(f"{PACKAGES[peer]} is not installed: pip install {PACKAGES[peer]}")
    return peer


def race(model: Path, compiled: Path, threads: int, rounds: int) -> Result:
    """Compare values, then times; TvmconvError where values differ or a contender fails."""
    peer = require(model)
    workers = {
        name: Worker(ModelTimer, (name, str(path), threads), environment(threads))
        for name, path in ((OURS, compiled), (peer, model))
    }
    try:
        outputs = {name: _answer(name, worker, "outputs") for name, worker in workers.items()}
        difference = largest_difference(outputs[OURS], outputs[peer])
        if not difference <= CLOSE:
            raise TvmconvError(
                f"{model.name}: outputs differ from {peer}'s by {difference:.1e} of the largest, "
                f"{CLOSE:.0e} is allowed: please report this"
            )
        for worker in workers.values():
            worker.pause()
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(rounds):
            for name, worker in workers.items():
                worker.resume()
                seconds[name].append(_answer(name, worker, "seconds"))
                worker.pause()
    finally:
        for worker in workers.values():
            worker.close()
    return Result(model.stem, threads, difference, seconds)


def _answer(name: str, worker: Worker, verb: str) -> Any:
    answer = worker.ask(TIMEOUT_SECONDS, verb)
    if isinstance(answer, Failure):
        raise TvmconvError(f"{name} failed: {answer.text}")
    return answer


def largest_difference(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """The largest of all outputs, in parts of each one's largest value; infinite for other shapes."""
    if [each.shape for each in ours] != [each.shape for each in theirs]:
        return float("inf")
    return max(
        float(np.abs(mine - wanted).max() / max(np.abs(wanted).max(), 1e-30))
        for mine, wanted in zip(ours, theirs, strict=True)
    )


def cells(result: Result) -> list[str]:
    """One line of the table."""
    times = [
        f"{1e3 * statistics.median(each):.2f} ({1e3 * min(each):.2f}-{1e3 * max(each):.2f})"
        for each in (result.seconds[OURS], result.seconds[result.peer])
    ]
    ratio, difference = f"{result.ratio:.2f}", f"{result.difference:.0e}"
    ours, theirs = times
    return [result.model, str(result.threads), ours, result.peer, theirs, ratio, difference]


COLUMNS = ("model", "threads", f"{OURS}, ms", "peer", "peer, ms", "ratio", "outputs differ by")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", metavar="MODEL", nargs="+", type=Path)
    parser.add_argument("--threads", default="1", metavar="N[,N..]", help="default: 1")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--bundles", type=Path, help="keep compiled models there, and take those")
    parser.add_argument("--json", metavar="FILE", type=Path)
    args = parser.parse_args()
    peers = {require(model) for model in args.models}
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.bundles or Path(temporary)
        for model in args.models:
            compiled = folder / f"{model.stem}.tvmconv"
            if not compiled.exists():
                tvmconv.compile(model, output=compiled)
            for threads in map(int, args.threads.split(",")):
                results.append(race(model, compiled, threads, args.rounds))
                print(" ".join(cells(results[-1])), file=sys.stderr, flush=True)
    tables.show_table(COLUMNS, [cells(result) for result in results])
    if args.json:
        facts = {"cpu": host.cpu_name(), "date": time.strftime("%Y-%m-%d")}
        facts |= {PACKAGES[peer]: version(PACKAGES[peer]) or "" for peer in sorted(peers)}
        rows = [dataclasses.asdict(result) | {"ratio": result.ratio} for result in results]
        args.json.write_text(json.dumps({**facts, "models": rows}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except TvmconvError as error:
        sys.exit(f"error: {error}")
