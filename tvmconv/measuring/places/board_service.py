"""What a board does for a client: keeps files, and measures with them; the questions are JSON text."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from tvmconv.errors import IncompatibleMachineError, MissingToolError, TuningError
from tvmconv.files import decode, parse_json
from tvmconv.hardware import Machine, host
from tvmconv.measuring.process import device
from tvmconv.measuring.process.candidate import Built, Failure
from tvmconv.measuring.process.libraries import Libraries
from tvmconv.measuring.process.runner import Conditions, Runner
from tvmconv.problem.spec import ConvSpec
from tvmconv.version import __version__


class BoardService:
    """What a client may ask for: files put here, and questions about them; JSON text both ways.

    A question is an object of ``verb`` and its arguments; the answer has ``value``, or ``error`` where a
    candidate is to blame, or ``refused`` where nothing can be measured here at all.
    """

    def __init__(self, folder: Path, runtime: Path) -> None:
        self._folder, self._runtime = folder, runtime
        self._runner: Runner | None = None
        self._claim = contextlib.ExitStack()

    def put(self, name: str, content: bytes) -> None:
        """Keep a file; empty content removes it."""
        file = self._folder / Path(name).name
        if content:
            file.write_bytes(content)
        else:
            file.unlink(missing_ok=True)

    def ask(self, text: str) -> str:
        """Answer a question."""
        begin = time.monotonic()
        try:
            question = parse_json(text)
            verb = question.pop("verb")
            value = getattr(self, f"_{verb}")(**question)
        except (IncompatibleMachineError, MissingToolError, TuningError, ValueError) as error:
            return json.dumps({"refused": str(error)})
        except (AttributeError, KeyError, TypeError) as error:
            reason = f"its tvmconv {__version__} does not know this question ({error})"
            return json.dumps({"refused": f"{reason}: install the same release on both sides"})
        took = time.monotonic() - begin
        if isinstance(value, Failure):
            return json.dumps({"error": value.text, "took": took})
        return json.dumps({"value": value, "took": took})

    def close(self) -> None:
        """End the measuring process, and let its GPU go."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None
        self._claim.close()

    def _begin(self, machine: Any, threads: int, cache: str, **files: str) -> dict[str, Any]:
        """Get ready; ``files`` are those of `Libraries` that were put here before."""
        known: Machine = decode(Machine, machine, "machine")
        missing = sorted(set(known.features) - host.cpu_features())
        if known.architecture != host.architecture() or missing:
            lacks = known.architecture if not missing else ", ".join(missing)
            raise IncompatibleMachineError(f"{known.name} is not this board, which lacks {lacks}")
        here = device.here(known)
        self.close()
        self._claim.enter_context(device.claimed(known))
        placed = {name: self._folder / file for name, file in files.items()}
        libraries = Libraries(**{"runtime": self._runtime, **placed})
        self._runner = Runner(known, libraries, Conditions(threads, cache))
        return {"cpu": here.name, "driver": here.driver, "tvmconv": __version__}

    def _roof(self, limit: float) -> Any:
        return dataclasses.asdict(self._at(limit).roof())

    def _measure(
        self, key: str, built: Any, best: float | None, beside: Any, seconds: float, limit: float
    ) -> float | Failure:
        yardstick = None if beside is None else self._built(beside)
        spec = ConvSpec.from_key(key)
        best = float("inf") if best is None else best
        return self._at(limit).measure(spec, self._built(built), best, yardstick, seconds)

    def _interleave(
        self, key: str, built: list[Any], rounds: int, again: int, limit: float
    ) -> list[list[list[float]]] | Failure:
        kernels = [self._built(each) for each in built]
        return self._at(limit).compare(ConvSpec.from_key(key), kernels, rounds, again)

    def _at(self, limit: float) -> Runner:
        if self._runner is None:
            raise ValueError("`begin` comes first")
        self._runner.timeout_seconds = limit
        return self._runner

    def _built(self, fields: Any) -> Built:
        built: Built = decode(Built, fields, "built")
        return built.placed(self._folder)
