"""One library in a process of its own: prepares layers, checks their values, times them."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
from types import ModuleType

from tvmconv import hardware, runtime
from tvmconv.checking import oracle
from tvmconv.errors import TuningError
from tvmconv.hardware import host
from tvmconv.measuring.peers import contender, ours
from tvmconv.measuring.peers.contender import Array, Prepared, UnsupportedLayerError
from tvmconv.measuring.roof import roof_loops
from tvmconv.measuring.roof.probe import Probe, Roof
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import pools

LIBRARIES = ("xnnpack", "onednn", "onnxruntime", "openvino", "tensorflow", "ncnn")


def module(name: str) -> ModuleType:
    """The module of a library in `LIBRARIES`."""
    return importlib.import_module(f"tvmconv.measuring.peers.{name}")


def missing(name: str) -> list[str]:
    """Packages of a library that are not installed."""
    return [package for package in module(name).PACKAGES if version(package) is None]


def version(package: str) -> str | None:
    """Installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def alone(threads: int) -> None:
    """Keep what this process does next to as many cores, and what the libraries log away from stderr.

    They greet, warn and log there; what fails is said in the answer.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class LibraryTimer:
    """What a timing process does; ``bundle`` is a path for our own kernels, None for a library."""

    def __init__(self, name: str, threads: int, bundle: str | None) -> None:
        alone(threads)
        self._name, self._threads = name, threads
        self._library = runtime.load(bundle, threads=threads) if bundle else None
        self._module = None if bundle else module(name)
        self._layers: dict[str, Prepared] = {}

    def prepare(self, key: str) -> bool:
        """Make the layer ready and compare its values with the oracle's; raises if they are wrong."""
        spec = ConvSpec.from_key(key)
        arguments = oracle.random_arguments(spec, seed=0)
        prepared = self._prepared(spec, arguments["data"], arguments["filter"])
        peer = None if self._library is not None else self._name
        contender.check(spec, arguments, prepared, peer, self._why(spec))
        self._layers[key] = prepared
        return True

    def seconds(self, key: str, least_ms: float) -> float:
        """Median time of one call, of as many as fill ``least_ms``, after two that warm the caches."""
        call = self._layers[key].call
        call()
        call()
        return contender.seconds(call, least_ms)

    def roof(self) -> Roof:
        """What this machine can do at most, with as many threads; for our own process."""
        if self._library is None:
            raise TuningError("only the process of our own kernels measures the roof")
        machine, _ = hardware.find_machine(self._library.variant.machine)
        pools.use_threads(self._threads)
        loops = roof_loops.compiled(machine, self._threads)
        return Probe(machine, self._threads, loops).roof()

    def _why(self, spec: ConvSpec) -> str:
        """What is known of the library's wrong values on this machine."""
        known = getattr(self._module, "why_wrong", None)
        return "" if known is None else str(known(spec, host.cpu_features()))

    def _prepared(self, spec: ConvSpec, data: Array, filter: Array) -> Prepared:
        if self._library is not None:
            return ours.prepare(self._library, spec, data, filter)
        assert self._module is not None  # noqa: S101 - for the type checker
        if spec.dtype not in self._module.DTYPES:
            allowed = " and ".join(self._module.DTYPES)
            raise UnsupportedLayerError(f"{spec.dtype}: it is compared in {allowed} only")
        prepared: Prepared = self._module.prepare(spec, data, filter, self._threads)
        return prepared
