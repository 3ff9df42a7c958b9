"""Compiles candidates in warm processes, several at a time, into libraries that the runtime alone loads.

An artifact is a shared library and not code in memory, so that the process that times it needs no
compiler, and may be on another machine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tvmconv import hardware
from tvmconv.errors import TuningError
from tvmconv.hardware import Function, Machine
from tvmconv.measuring.process.candidate import PACK, Built, Candidate, Failure
from tvmconv.measuring.process.pool import Pool, Question
from tvmconv.measuring.process.worker import Worker
from tvmconv.problem.spec import ConvSpec

# Candidates that one library holds: linking (12 ms) and setting up LLVM are paid once for all of them,
# while a crash costs compiling that many again, one by one. For a GPU they are one call of nvcc.
_BATCH = 6
_GPU_PATIENCE = 10  # times the limit for a candidate: nvcc takes seconds for a chunk of them


class Compilers:
    """Warm processes that schedule and compile for one machine; use `close` when done.

    ``scratch`` is a directory for the libraries. A candidate that takes longer than
    ``timeout_seconds`` (for a GPU ten times that), or whose compilation crashes, is a Failure and costs
    only itself.
    """

    def __init__(
        self,
        machine: Machine,
        scratch: Path,
        processes: int | None = None,
        timeout_seconds: float = 30.0,
    ) -> None:
        self._count = processes or len(os.sched_getaffinity(0))
        workers = [
            Worker(_Compiler, (machine.name, str(scratch), number)) for number in range(self._count)
        ]
        self._pool = Pool(workers, timeout_seconds * (_GPU_PATIENCE if machine.gpu else 1))

    def start(self) -> None:
        """Let all processes start now, in the background."""
        self._pool.start()

    def close(self) -> None:
        """End all processes."""
        self._pool.close()

    def roof(self, threads: int) -> str:
        """Compile the loops of `roof.Probe`; returns their library."""
        (library,) = self._pool.ask([Question("roof", (threads,))])
        if isinstance(library, Failure):
            raise TuningError(f"the roof's loops cannot be compiled: {library.text}")
        return str(library)

    def compile(
        self, spec: ConvSpec, candidates: Sequence[Candidate], shipped: bool = False
    ) -> list[Built | Failure]:
        """Compile candidates of one spec, in their order.

        ``shipped`` compiles exactly what a bundle would hold. Otherwise the checks of the arguments at
        the beginning of each function are left out: they are half the compiling of a small kernel.
        """
        # Alike beside alike: candidates of one packed layout share its packing function.
        order = sorted(range(len(candidates)), key=lambda i: repr(candidates[i].identity))
        size = max(1, min(_BATCH, -(-len(order) // self._count)))
        chunks = [order[i : i + size] for i in range(0, len(order), size)]
        results: dict[int, Built | Failure] = {}
        while chunks:
            questions = [
                Question("compile", (spec.key, [candidates[i] for i in chunk], shipped))
                for chunk in chunks
            ]
            failed: list[list[int]] = []
            for chunk, answer in zip(chunks, self._pool.ask(questions), strict=True):
                if not isinstance(answer, Failure):
                    results.update(zip(chunk, answer, strict=True))
                elif len(chunk) > 1:
                    failed += [[i] for i in chunk]  # one of them is to blame: which?
                else:
                    results[chunk[0]] = answer
            chunks = failed
        return [results[i] for i in range(len(candidates))]


class _Compiler:
    """What a compiling process does."""

    def __init__(self, machine_name: str, scratch: str, number: int) -> None:
        # A second of importing TVM; the process is ready when it has passed.
        from tvmconv.building.compile import compile_functions

        self._compile_functions = compile_functions
        self.machine, self.pack = hardware.find_machine(machine_name)
        self._prefix = f"{scratch}/{number}-{os.getpid()}"
        self._libraries = 0
        self._packs: dict[tuple[str, int], str] = {}

    def roof(self, threads: int) -> str:
        from tvmconv.measuring.roof import roof_loops

        return self._link(roof_loops.functions(self.machine, threads), shipped=False)

    def compile(
        self, key: str, candidates: Sequence[Candidate], shipped: bool
    ) -> list[Built | Failure]:
        spec = ConvSpec.from_key(key)
        scheduled = [self._schedule(spec, candidate) for candidate in candidates]
        good = [function for function in scheduled if not isinstance(function, Failure)]
        try:
            built = iter(self._build(key, good, shipped))
        except TuningError:
            raise
        except Exception as error:
            if len(candidates) > 1:
                return [self.compile(key, [each], shipped)[0] for each in candidates]
            return [Failure(f"{type(error).__name__}: {error}")]
        return [
            each
            if isinstance(each, Failure)
            else replace(next(built), macs=self._macs(spec, candidate))
            for candidate, each in zip(candidates, scheduled, strict=True)
        ]

    def _macs(self, spec: ConvSpec, candidate: Candidate) -> int:
        schedule = hardware.find_schedule(candidate.schedule, self.pack)
        return schedule.macs(spec, candidate.decisions)

    def _schedule(self, spec: ConvSpec, candidate: Candidate) -> Function | Failure:
        try:
            schedule = hardware.find_schedule(candidate.schedule, self.pack)
            return schedule.apply(spec, self.machine, candidate.decisions)
        except Exception as error:
            return Failure(f"{type(error).__name__}: {error}")

    def _build(self, key: str, functions: Sequence[Function], shipped: bool) -> list[Built]:
        """Link functions into one library, their packing functions into others, each once."""
        if not functions:
            return []
        mains = {f"main{i}": function.main for i, function in enumerate(functions)}
        if self.machine.gpu is not None:
            return self._build_in_one(mains, functions, shipped)
        library = self._link(mains, shipped)
        return [
            _built(library, symbol, function)
            if function.pack is None
            else _built(library, symbol, function, self._pack(key, function.pack))
            for symbol, function in zip(mains, functions, strict=True)
        ]

    def _build_in_one(
        self, mains: dict[str, Any], functions: Sequence[Function], shipped: bool
    ) -> list[Built]:
        """With the packing functions in the same library: another would be another call of nvcc, 0.6 s."""
        import tvm_ffi

        symbols: dict[int, str] = {}
        everything, packing = dict(mains), []
        for function in functions:
            if function.pack is None:
                packing.append(PACK)
                continue
            symbol = symbols.setdefault(
                tvm_ffi.structural_hash(function.pack), f"{PACK}{len(symbols)}"
            )
            everything[symbol] = function.pack
            packing.append(symbol)
        library = self._link(everything, shipped)
        return [
            _built(library, main, function, library if function.pack else None, symbol)
            for main, symbol, function in zip(mains, packing, functions, strict=True)
        ]

    def _pack(self, key: str, pack: Any) -> str:
        import tvm_ffi

        place = (key, tvm_ffi.structural_hash(pack))
        if place not in self._packs:
            self._packs[place] = self._link({PACK: pack}, shipped=True)
        return self._packs[place]

    def _link(self, functions: dict[str, Any], shipped: bool) -> str:
        import tvm

        from tvmconv.building import cross, linked

        self._libraries += 1
        path = f"{self._prefix}-{self._libraries}.so"
        with tvm.transform.PassContext(config={"tirx.disable_assert": not shipped}):
            executable = self._compile_functions(functions, self.machine.target)
        link = cross.link_for(self.machine.architecture)
        try:
            executable.export_library(path, fcompile=link)
        except Exception as error:  # of the linker or the disk, whatever the candidate
            raise TuningError(
                f"{error} Trials made so far are kept; run the same command again when it is mended."
            ) from error
        linked.check_device_code(Path(path), self.machine)
        return path


def _built(
    library: str, symbol: str, function: Function, packing: str | None = None, pack: str = PACK
) -> Built:
    if packing is None:
        return Built(library, symbol, workspace_bytes=function.workspace_bytes)
    shape, dtype = function.packed_shape, function.packed_dtype
    return Built(library, symbol, packing, shape, dtype, function.workspace_bytes, pack)
