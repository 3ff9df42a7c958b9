"""All contenders on all layers, in turn: A B C A B C, each in a process of its own.

Thread pools spin for a while after a call and would slow whoever comes next, so a process is stopped
(SIGSTOP) whenever it is not its turn.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from tvmconv import hardware, runtime
from tvmconv.building.builder import Progress
from tvmconv.errors import TvmconvError
from tvmconv.measuring.peers import ours
from tvmconv.measuring.peers.contender import plain
from tvmconv.measuring.peers.library_timer import LibraryTimer
from tvmconv.measuring.process.candidate import Failure
from tvmconv.measuring.process.worker import Worker
from tvmconv.measuring.roof import bounds
from tvmconv.measuring.roof.probe import Roof
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.workloads import Layer

OURS = ours.NAME
# Of one contender in one round: long enough for a median of some calls, short enough for fair turns.
_SLICE_MS = 10.0
_TIMEOUT_SECONDS = 120.0

KINDS = (
    "1x1",
    "3x3 stride 1",
    "other dense",
    "depthwise stride 1",
    "depthwise stride 2",
)


@dataclass(frozen=True)
class Raced:
    """One layer and every contender's times.

    Attributes:
        name, count: the layer, and how often the network has it.
        key: of the convolution alone, without epilogue.
        seconds: by contender, the median call of each round.
        absent: by contender, why it has no time.
        work: of our kernel's algorithm, as in `bounds.work`.
    """

    name: str
    count: int
    key: str
    seconds: dict[str, list[float]]
    absent: dict[str, str]
    work: float = 0.0

    @property
    def spec(self) -> ConvSpec:
        """The convolution."""
        return ConvSpec.from_key(self.key)

    def median(self, name: str) -> float:
        """Median over the rounds, in seconds; infinite for who has no time."""
        times = self.seconds.get(name)
        return statistics.median(times) if times else math.inf

    def best_peer(self) -> str | None:
        """The fastest of the others."""
        peers = [name for name in self.seconds if name != OURS]
        return min(peers, key=self.median, default=None)

    def ratio(self, name: str) -> float:
        """How many times as long as ours ``name`` takes: the median of the rounds' ratios."""
        pairs = zip(self.seconds[name], self.seconds[OURS], strict=True)
        return statistics.median(theirs / mine for theirs, mine in pairs)


@dataclass(frozen=True)
class Race:
    """All layers, and what the machine can do at most."""

    rows: tuple[Raced, ...]
    contenders: tuple[str, ...]
    roof: Roof
    threads: int
    rounds: int


def kind(spec: ConvSpec) -> str:
    """One of `KINDS`."""
    if spec.op == "depthwise_conv2d":
        return "depthwise stride 1" if spec.strides == (1, 1) else "depthwise stride 2"
    if spec.filter_shape[:2] == (1, 1) and spec.strides == (1, 1):
        return "1x1"
    if spec.filter_shape[:2] == (3, 3) and spec.strides == (1, 1) and spec.in_channels >= 32:
        return "3x3 stride 1"
    return "other dense"


def plain_layers(layers: Sequence[Layer]) -> list[Layer]:
    """The layers without epilogue; those that become equal are counted together."""
    merged: dict[ConvSpec, Layer] = {}
    for layer in layers:
        spec = plain(layer.spec)
        first = merged.get(spec)
        name, count = (first.name, first.count) if first else (layer.name, 0)
        merged[spec] = Layer(name, spec, count + layer.count)
    return [layer for layer in merged.values() if not layer.spec.is_empty]


def race(
    layers: Sequence[Layer],
    bundle: str,
    libraries: Sequence[str],
    threads: int,
    rounds: int,
    progress: Progress,
) -> Race:
    """Check and time ``layers`` (from `plain_layers`) of ``bundle`` against ``libraries``.

    A library that fails on a layer has no time there, and the row says why. Raises BuildError if our
    own kernels are wrong, TuningError if a process cannot be started.
    """
    workers = {
        name: Worker(
            LibraryTimer, (name, threads, bundle if name == OURS else None), environment(threads)
        )
        for name in (OURS, *libraries)
    }
    try:
        rows = _prepared(workers, layers, bundle, progress)
        for worker in workers.values():
            worker.pause()
        roof = _rounds(workers, rows, rounds, progress, "round")
        doubtful = [row for row in rows if share_of_limit(row, roof) > bounds.MOST_OF_A_ROOF]
        for row in doubtful:
            for name in row.seconds:
                row.seconds[name] = []
        if doubtful:
            what = "what is faster than a roof, again: round"
            roof = roof.highest(_rounds(workers, doubtful, rounds, progress, what))
    finally:
        for worker in workers.values():
            worker.close()
    return Race(tuple(rows), tuple(workers), roof, threads, rounds)


def _rounds(
    workers: dict[str, Worker], rows: Sequence[Raced], rounds: int, progress: Progress, what: str
) -> Roof:
    """All contenders in turn; returns the highest of each round's looks at the roof."""
    roofs = []
    for number in range(rounds):
        roofs.append(_roof(workers[OURS]))
        for at, row in enumerate(rows):
            progress(
                f"{what} {number + 1} of {rounds}", number * len(rows) + at, rounds * len(rows)
            )
            _one_round(workers, row)
    return reduce(Roof.highest, roofs)


def share_of_limit(row: Raced, roof: Roof) -> float:
    """The larger of our kernel's arithmetic over the peak and bytes over the bandwidth, of its time."""
    size = row.spec.bytes
    limit = max(row.work / roof.flops_per_second, size / roof.bandwidth(size))
    return limit / row.median(OURS)


def _roof(worker: Worker) -> Roof:
    worker.resume()
    answer = worker.ask(_TIMEOUT_SECONDS, "roof")
    _require(answer, "measuring the roof")
    worker.pause()
    roof: Roof = answer
    return roof


def environment(threads: int) -> dict[str, str]:
    """Thread counts for the libraries that read them before they can be told."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TVM_NUM_THREADS")
    return {
        **dict.fromkeys(names, str(threads)),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _prepared(
    workers: dict[str, Worker], layers: Sequence[Layer], bundle: str, progress: Progress
) -> list[Raced]:
    library = runtime.load(bundle, threads=1)
    machine, pack = hardware.find_machine(library.variant.machine)
    rows = []
    for layer in layers:
        entry = library[layer.spec.key].entry
        work = bounds.work(layer.spec, entry.schedule, entry.decisions, machine, pack)
        rows.append(Raced(layer.name, layer.count, layer.spec.key, {}, {}, work))
    for name, worker in workers.items():
        for at, row in enumerate(rows):
            progress(f"preparing {name}", at, len(rows))
            answer = worker.ask(_TIMEOUT_SECONDS, "prepare", row.key)
            if name == OURS:
                _require(answer, f"{row.name} ({row.key})")
            if isinstance(answer, Failure):
                row.absent[name] = answer.text
            else:
                row.seconds[name] = []
    return rows


def _one_round(workers: dict[str, Worker], row: Raced) -> None:
    for name in list(row.seconds):
        worker = workers[name]
        worker.resume()
        answer = worker.ask(_TIMEOUT_SECONDS, "seconds", row.key, _SLICE_MS)
        if isinstance(answer, Failure):
            del row.seconds[name]
            row.absent[name] = answer.text
        else:
            row.seconds[name].append(answer)
            worker.pause()
    _require(OURS in row.seconds or Failure(row.absent.get(OURS, "")), row.name)


def _require(answer: Any, what: str) -> None:
    if isinstance(answer, Failure):
        raise TvmconvError(f"{what} failed in the process of our own kernels: {answer.text}")


def geometric_mean(values: Sequence[float]) -> float:
    """Return the exponential of the mean logarithm."""
    return math.exp(statistics.fmean(map(math.log, values)))


def by_kind(race: Race) -> dict[str, list[float]]:
    """Ratios to the best peer of each layer, by kind, for kinds that occur."""
    found: dict[str, list[float]] = {name: [] for name in KINDS}
    for row in race.rows:
        best = row.best_peer()
        if best is not None:
            found[kind(row.spec)].append(row.ratio(best))
    return {name: ratios for name, ratios in found.items() if ratios}


def network_seconds(race: Race, name: str) -> float:
    """All layers, each as often as it occurs; infinite for who lacks one."""
    return sum(row.median(name) * row.count for row in race.rows)
