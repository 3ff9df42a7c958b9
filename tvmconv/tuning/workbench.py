"""What the measuring process does: one spec's data at hand, candidates compiled in memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvmconv import hardware, lowering, oracle, timing
from tvmconv.roof import Probe
from tvmconv.runtime import arrays, tensors
from tvmconv.spec import ConvSpec
from tvmconv.tuning.measure import Candidate

# A run fills 4 ms and there are 3, each between two looks at the roof.
_REPEATS, _LEAST_MS = 3, 4.0


class Workbench:
    """Arguments and expected output of one spec, and the machine to compile for."""

    def __init__(self, machine_name: str, threads: int = 1) -> None:
        self.machine, self.pack = hardware.find_machine(machine_name)
        self.probe = Probe(self.machine, threads)
        self.reference = statistics.median(self.probe.fed_flops_per_second() for _ in range(11))
        self.spec: ConvSpec | None = None
        self.arguments: dict[str, np.ndarray[Any, Any]] = {}
        self.expected: np.ndarray[Any, Any] = np.empty(0)

    def measure(self, key: str, candidates: Sequence[Candidate], rounds: int) -> list[list[float]]:
        """Check and time candidates one after the other: [median seconds] for each.

        Seconds at a steady clock: candidates are measured minutes apart, and a shared machine's speed
        drifts by a fifth meanwhile, more than good candidates differ. So each run is scaled by the
        roof beside it over the roof when this process started.
        """
        medians = []
        for candidate in candidates:
            kernel = self._prepare(key, candidate)
            medians.append([statistics.median(self._steady(kernel) for _ in range(_REPEATS))])
        return medians

    def _steady(self, kernel: tuple[Any, str, tuple[Any, ...]]) -> float:
        before = self.probe.fed_flops_per_second(_LEAST_MS / 2)
        (seconds,) = timing.seconds(*kernel, 1, _LEAST_MS)
        after = self.probe.fed_flops_per_second(_LEAST_MS / 2)
        return seconds * (before + after) / 2 / self.reference

    def interleave(
        self, key: str, candidates: Sequence[Candidate], rounds: int
    ) -> list[list[float]]:
        """Check candidates, then time them in turn: seconds by round, for each."""
        prepared = [self._prepare(key, candidate) for candidate in candidates]
        times: list[list[float]] = [[] for _ in prepared]
        for _ in range(rounds):
            for kernel, seconds in zip(prepared, times, strict=True):
                seconds.extend(timing.seconds(*kernel, 1, _LEAST_MS))
        return times

    def _load(self, key: str) -> ConvSpec:
        """Random arguments, aligned as the runtime would align them, and what must come out."""
        if self.spec is None or self.spec.key != key:
            self.spec = ConvSpec.from_key(key)
            arguments = oracle.random_arguments(self.spec, seed=0)
            self.expected = oracle.conv(self.spec, **arguments)
            self.arguments = {name: arrays.aligned_copy(array) for name, array in arguments.items()}
        return self.spec

    def _prepare(self, key: str, candidate: Candidate) -> tuple[Any, str, tuple[Any, ...]]:
        """Compile a candidate and check its values; returns what `timing.seconds` takes."""
        spec = self._load(key)
        schedule = hardware.find_schedule(candidate.schedule, self.pack)
        function = schedule.apply(spec, self.machine, candidate.decisions)
        functions = {"main": function.main}
        if function.pack is not None:
            functions["pack"] = function.pack
        module = lowering.compile_functions(functions, self.machine.target).mod
        weights = self.arguments["filter"]
        if function.pack is not None:
            packed = arrays.empty_aligned(function.packed_shape, weights.dtype)
            module["pack"](arrays.array_pointer(weights), arrays.array_pointer(packed))
            weights = packed
        images = {
            name: array.reshape((spec.batch, *array.shape[-3:]))
            for name, array in self.arguments.items()
            if name in ("data", "residual")
        }
        out = arrays.empty_aligned(spec.output_shape, tensors.numpy_dtype(spec.dtype))
        out.view(np.uint8)[...] = 0xFF  # NaN in every float format: an element never written shows
        called = [images["data"], weights]
        called += [self.arguments["bias"]] if spec.bias else []
        called += [images["residual"]] if spec.residual else []
        called += [out.reshape((spec.batch, *out.shape[-3:]))]
        pointers = tuple(arrays.array_pointer(array) for array in called)
        module["main"](*pointers)
        oracle.assert_close(spec, self.expected, out)
        return module, "main", pointers
