"""Times each call of a compiled model's program alone, in the program's order, beside the whole."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmconv.building.builder import Progress
from tvmconv.bundle.model_entries import ArgumentEntry, LayerEntry, ProgramEntry
from tvmconv.errors import BundleError
from tvmconv.hardware import Machine, host
from tvmconv.measuring.bench import memory
from tvmconv.measuring.bench.bench import work
from tvmconv.measuring.bench.rows import Compiled
from tvmconv.measuring.roof import bounds, roof_loops, timing
from tvmconv.measuring.roof import probe as roof
from tvmconv.measuring.roof.probe import Bandwidth, Roof
from tvmconv.models import comparing
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import Model, arrays, pools, tensors

# Of a call in one round, and of the whole program: `timing.fastest` takes the fastest look in them.
_CALL_MS = 1.0
_WHOLE_MS = 20.0
_COPY_MS = 3.0
_LEAST_COPY = 8192  # bytes: what the probe copies at least


@dataclass(frozen=True)
class Row:
    """One call of a program, measured.

    Attributes:
        symbol, operators: the function, and what it computes of the model.
        key: of the convolution, None for other functions.
        shape: of the result.
        microseconds: of one call, its arrays in the caches: the fastest look of a round, median over rounds.
        fastest, slowest: the spread over the rounds.
        share: of the sum of all calls, in percent.
        flops: of a convolution; 0 for other functions, of which bytes alone are counted.
        bytes: of all arrays, each read or written once.
        limit: ``arithmetic`` or ``memory``, whichever floor is higher.
        percent_limit: that floor, of the time; None where the call is faster, also measured again.
        above: how many times as fast it is then, else 0.
    """

    symbol: str
    operators: tuple[str, ...]
    key: str | None
    shape: tuple[int, ...]
    microseconds: float
    fastest: float
    slowest: float
    share: float
    flops: int
    bytes: int
    limit: str
    percent_limit: float | None
    above: float

    @property
    def kind(self) -> str:
        """Operator and filter of a convolution, else the operators."""
        if self.key is None:
            return " ".join(dict.fromkeys(self.operators))
        spec = ConvSpec.from_key(self.key)
        return f"{spec.op} {spec.filter_shape[0]}x{spec.filter_shape[1]}"


@dataclass(frozen=True)
class Profile:
    """All calls in their order, the whole program's time, and the roof they were held against."""

    rows: tuple[Row, ...]
    whole_microseconds: float
    roof: Roof
    machine: str
    cpu: str
    threads: int
    rounds: int

    @property
    def sum_microseconds(self) -> float:
        """Of all calls, each measured alone."""
        return sum(row.microseconds for row in self.rows)

    @property
    def difference_percent(self) -> float:
        """How much longer the whole takes than the sum: what a call finds in the caches when it is alone."""
        return 100 * (self.whole_microseconds / self.sum_microseconds - 1) if self.rows else 0.0

    def kinds(self) -> dict[str, tuple[int, float]]:
        """Kind -> how many calls, and their microseconds together; the largest first."""
        found: dict[str, tuple[int, float]] = {}
        for row in self.rows:
            calls, time = found.get(row.kind, (0, 0.0))
            found[row.kind] = (calls + 1, time + row.microseconds)
        return dict(sorted(found.items(), key=lambda each: -each[1][1]))


class _Memory:
    """What a call of the whole program works on, and views of it for each of its calls."""

    def __init__(self, model: Model, program: ProgramEntry) -> None:
        inputs = comparing.random_inputs(model.inputs, seed=0)
        self.inputs = [inputs[each.name] for each in model.inputs]
        weights = np.fromfile(model.path / program.weights, np.uint8)
        self._parts: dict[str, Any] = {
            "weights": arrays.aligned_copy(weights if weights.size else np.zeros(64, np.uint8)),
            "arena": arrays.empty_aligned((max(program.arena_bytes, 64),), np.uint8),
        }
        for number, array in enumerate(self.inputs):
            self._parts[f"input{number}"] = arrays.aligned_copy(array)
        for number, each in enumerate(model.outputs):
            self._parts[f"output{number}"] = arrays.empty_aligned(
                each.shape, tensors.numpy_dtype(each.dtype)
            )
        count = len(self.inputs)
        order = [
            *(f"input{number}" for number in range(count)),
            "weights",
            "arena",
            *(f"output{number}" for number in range(len(model.outputs))),
        ]
        self.whole = tuple(arrays.array_pointer(self._parts[name]) for name in order)
        self._views: list[Any] = []  # what pointers point at

    def pointers(self, layer: LayerEntry) -> tuple[Any, ...]:
        """The arguments of a call."""
        views = [self._view(each) for each in layer.arguments]
        self._views.append(views)
        return tuple(arrays.array_pointer(view) for view in views)

    def output(self, number: int) -> Any:
        """An output of the program."""
        return self._parts[f"output{number}"]

    def _view(self, entry: ArgumentEntry) -> Any:
        dtype = tensors.numpy_dtype(entry.dtype)
        size = memory.size(entry)
        part = self._parts[entry.memory].reshape(-1).view(np.uint8)
        if not 0 <= entry.begin <= part.size - size:
            raise BundleError(f"an argument lies outside of {entry.memory}")
        return part[entry.begin : entry.begin + size].view(dtype).reshape(entry.shape)


def profile(model: Model, machine: Machine, rounds: int, progress: Progress) -> Profile:
    """Time every call of ``model`` alone, ``rounds`` times, in the program's order and on its memory.

    A call is repeated where it stands, so that it reads the values that it reads in the program; what they
    make at the end is compared with what the model returns. A call that is repeated finds its arrays in
    the caches: the sum may be below the whole.

    Raises BundleError where the calls make something else than the program.
    """
    program = model.variant.program
    if program is None:
        raise ValueError(f"{model.path} holds kernels, no model")
    pools.use_threads(model.threads)
    loops = roof_loops.compiled(machine, model.threads)
    probe = roof.Probe(machine, model.threads, loops)
    space = _Memory(model, program)
    pointers = [space.pointers(layer) for layer in program.layers]
    seconds: list[list[float]] = [[] for _ in program.layers]
    peaks: list[list[float]] = [[] for _ in program.layers]
    works = [_work(model, layer, machine) for layer in program.layers]
    whole: list[float] = []

    def look(at: int) -> None:
        layer = program.layers[at]
        seconds[at].append(timing.fastest(model.module, layer.symbol, pointers[at], _CALL_MS))
        if layer.key:  # a look at the roof beside it: a shared machine's clock moves
            peaks[at].append(probe.highest_flops_per_second(_CALL_MS))

    for number in range(rounds):
        for at in range(len(program.layers)):
            progress(f"round {number + 1} of {rounds}", at, len(program.layers))
            look(at)
        if number == 0:
            _require_same(model, space)
        whole.append(timing.fastest(model.module, program.symbol, space.whole, _WHOLE_MS))

    def rows(measured: Roof) -> tuple[Row, ...]:
        total = sum(map(statistics.median, seconds))
        columns = zip(program.layers, works, seconds, peaks, strict=True)
        return tuple(_row(*each, total, measured) for each in columns)

    measured = _roof(probe, [look for each in peaks for look in each], program)
    doubtful = [at for at, row in enumerate(rows(measured)) if row.above]
    for at in doubtful:
        progress("what is faster than a roof, again", at, len(program.layers))
        seconds[at], peaks[at] = [], []
        for _ in range(rounds):
            look(at)
    if doubtful:
        looks = [look for each in peaks for look in each]
        measured = measured.highest(_roof(probe, looks, program))
    made = rows(measured)
    time, name = statistics.median(whole) * 1e6, model.variant.machine
    return Profile(made, time, measured, name, host.cpu_name(), model.threads, rounds)


def _roof(probe: roof.Probe, looks: Sequence[float], program: ProgramEntry) -> Roof:
    """The peak of all looks, and bandwidths for working sets as large as those of the calls."""
    sizes = {1 << max(_bytes(layer) - 1, _LEAST_COPY - 1).bit_length() for layer in program.layers}
    levels = tuple(Bandwidth(size, probe.bandwidth(size, _COPY_MS)) for size in sorted(sizes))
    peak = statistics.median(looks) if looks else probe.peak()
    return Roof(peak, probe.highest_fed_flops_per_second(_COPY_MS), levels)


def _bytes(layer: LayerEntry) -> int:
    """Of all arrays of a call."""
    return sum(memory.size(each) for each in layer.arguments)


def _require_same(model: Model, work: _Memory) -> None:
    made: Any = model(*work.inputs)
    for number, right in enumerate(made if isinstance(made, tuple) else (made,)):
        if not np.array_equal(work.output(number), right, equal_nan=right.dtype.kind == "f"):
            name = model.outputs[number].name
            raise BundleError(f"the calls of {model.path}, one by one, make another {name}")


def _work(model: Model, layer: LayerEntry, machine: Machine) -> float:
    """As `bounds.work`, of a convolution; 0 for other functions."""
    if layer.key is None:
        return 0.0
    entry = model.variant.kernels[layer.key]
    made = Compiled(entry.record or "default", entry.schedule, dict(entry.decisions))
    return work(ConvSpec.from_key(layer.key), made, machine)


def _row(
    layer: LayerEntry,
    done: float,
    times: list[float],
    peaks: list[float],
    total: float,
    measured: Roof,
) -> Row:
    seconds = statistics.median(times)
    looks = peaks or [measured.flops_per_second] * len(times)
    arithmetic = done / statistics.median(t * peak for t, peak in zip(times, looks, strict=True))
    if arithmetic > bounds.MOST_OF_A_ROOF:  # a neighbour has slowed the looks
        arithmetic = min(arithmetic, done / seconds / measured.flops_per_second)
    size = _bytes(layer)
    by_memory = size / measured.bandwidth(size) / seconds
    share = max(arithmetic, by_memory)
    percent = bounds.percent(share)
    return Row(
        layer.symbol,
        layer.operators,
        layer.key,
        layer.shape,
        seconds * 1e6,
        min(times) * 1e6,
        max(times) * 1e6,
        100 * seconds / total,
        ConvSpec.from_key(layer.key).flops if layer.key else 0,
        size,
        "arithmetic" if arithmetic >= by_memory else "memory",
        percent,
        share if percent is None else 0.0,
    )
