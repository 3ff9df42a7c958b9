"""MetaSchedule's own interfaces over warm processes, for its ``tune_tir``, ``tune_tasks`` and Relax.

::

    with tempfile.TemporaryDirectory() as scratch:
        builder, runner = WarmBuilder(scratch), WarmRunner()
        tune_tir(func, target, work_dir, 64, builder=builder, runner=runner)

MetaSchedule's LocalBuilder starts its processes anew for every batch, and its default build imports every
tensor intrinsic in each of them: 17 to 27 s (0.27.0.post1). Here both happen once. What MetaSchedule does
not tell its builder and runner they cannot check: values are compared with the oracle by
`tvmconv.tuning.session`, not here.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule.builder import BuilderInput, BuilderResult, PyBuilder
from tvm.s_tir.meta_schedule.runner import (
    PyRunner,
    PyRunnerFuture,
    RunnerFuture,
    RunnerInput,
    RunnerResult,
)

from tvmconv import timing, toolchain
from tvmconv.runtime import arrays, tensors
from tvmconv.tuning.candidate import Failure
from tvmconv.tuning.libraries import open_runtime
from tvmconv.tuning.pool import Pool, Question
from tvmconv.tuning.worker import Worker

_REPEATS, _LEAST_MS = 3, 3.0


@derived_object
class WarmBuilder(PyBuilder):  # type: ignore[misc] # PyBuilder is untyped
    """Builds in warm processes; artifacts are shared libraries below ``scratch``."""

    def __init__(
        self, scratch: str, processes: int | None = None, timeout_seconds: float = 30.0
    ) -> None:
        count = processes or len(os.sched_getaffinity(0))
        workers = [Worker(_ModuleCompiler, (scratch,)) for _ in range(count)]
        self.pool = Pool(workers, timeout_seconds)
        self.pool.start()

    def build(self, build_inputs: list[BuilderInput]) -> list[BuilderResult]:
        """Build all; a module that fails, crashes its process or hangs is an error of its own."""
        questions = [
            Question("build", (tvm.ir.save_json(each.mod), tvm.ir.save_json(each.target)))
            for each in build_inputs
        ]
        return [
            BuilderResult(None, answer.text)
            if isinstance(answer, Failure)
            else BuilderResult(answer, None)
            for answer in self.pool.ask(questions)
        ]


@derived_object
class WarmRunner(PyRunner):  # type: ignore[misc] # PyRunner is untyped
    """Times artifacts, one after the other, in a warm process without a compiler."""

    def __init__(self, threads: int = 1, timeout_seconds: float = 30.0) -> None:
        arguments = (str(toolchain.runtime_library()), threads)
        self.worker = Worker(_ArtifactTimer, arguments, {"TVM_NUM_THREADS": str(threads)})
        self.timeout_seconds = timeout_seconds

    def run(self, runner_inputs: list[RunnerInput]) -> list[RunnerFuture]:
        """Time all; every future is done."""
        return [_Done(self._one(each)) for each in runner_inputs]

    def _one(self, job: RunnerInput) -> RunnerResult:
        shapes = [
            (tuple(int(extent) for extent in info.shape), str(info.dtype)) for info in job.args_info
        ]
        path = str(job.artifact_path)
        answer = self.worker.ask(self.timeout_seconds, "seconds", path, shapes)
        if isinstance(answer, Failure):
            return RunnerResult(None, answer.text)
        return RunnerResult(answer, None)


@derived_object
class _Done(PyRunnerFuture):  # type: ignore[misc] # PyRunnerFuture is untyped
    """A result that is there."""

    def __init__(self, result: RunnerResult) -> None:
        self._result = result

    def done(self) -> bool:
        return True

    def result(self) -> RunnerResult:
        return self._result


class _ModuleCompiler:
    """What a building process does."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch

    def build(self, module: str, target: str) -> str:
        from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock

        mod = RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(tvm.ir.load_json(module))
        # Of its own, because MetaSchedule deletes an artifact together with its folder.
        path = os.path.join(tempfile.mkdtemp(dir=self._scratch), "main.so")
        executable = tvm.compile(mod, target=tvm.ir.load_json(target))
        executable.export_library(path, fcompile=toolchain.link)
        return path


class _ArtifactTimer:
    """What the timing process does."""

    def __init__(self, runtime: str, threads: int) -> None:
        open_runtime(Path(runtime), threads)
        self._arguments: dict[Any, list[arrays.Array]] = {}

    def seconds(self, path: str, shapes: Sequence[tuple[tuple[int, ...], str]]) -> list[float]:
        import tvm_ffi

        module = tvm_ffi.load_module(path)
        pointers = tuple(arrays.array_pointer(array) for array in self._filled(tuple(shapes)))
        (once,) = timing.seconds(module, "main", pointers, repeats=1, least_ms=0)
        calls = max(1, math.ceil(_LEAST_MS / 1e3 / once))
        return timing.seconds(module, "main", pointers, _REPEATS, 0, calls)

    def _filled(self, shapes: tuple[tuple[tuple[int, ...], str], ...]) -> list[arrays.Array]:
        """Random arguments: on zeros some CPUs run faster."""
        if shapes not in self._arguments:
            draw = np.random.default_rng(0)
            self._arguments = {shapes: []}
            for shape, dtype in shapes:
                array = arrays.empty_aligned(shape, tensors.numpy_dtype(dtype))
                array[...] = draw.integers(-3, 4, shape)
                self._arguments[shapes].append(array)
        return self._arguments[shapes]
