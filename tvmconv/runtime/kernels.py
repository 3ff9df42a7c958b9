"""What libraries of kernels have in common, for CPUs and for GPUs: kernels by key."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from tvmconv import errors
from tvmconv.bundle import manifest as bundle
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import engine
from tvmconv.runtime.compiled import CompiledKernel
from tvmconv.runtime.in_process import InProcess

_K = TypeVar("_K", bound=CompiledKernel)
_P = TypeVar("_P")  # where kernels run: on so many threads, or on a GPU
_Parts = tuple[ConvSpec, bundle.KernelEntry, str, Any, Any]


class UnknownKeyError(errors.UnknownNameError, KeyError):
    """A library has no kernel for that key; a KeyError too, as a mapping must raise."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the message's repr


class Kernels(InProcess, Mapping[str, _K], Generic[_K, _P]):
    """Kernels by `ConvSpec.key`, made when asked for."""

    def __init__(
        self,
        path: Path,
        manifest: bundle.Manifest,
        variant: bundle.Variant,
        specs: dict[str, ConvSpec],
        place: _P,
        kernels: engine.KernelLibrary,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.variant = variant
        self._specs = specs
        self._place = place
        self.mapped = kernels
        self._kernels: dict[str, _K] = {}

    @property
    def module(self) -> Any:
        """The opened kernel library as a ``tvm_ffi.Module``."""
        return self.mapped.module

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self.path)!r}, {len(self)} kernels for {self.variant.machine}"
            f"{self._where()})"
        )

    def __getitem__(self, key: str | ConvSpec) -> _K:
        name = key.key if isinstance(key, ConvSpec) else key
        if name not in self._specs:
            import difflib  # for this message alone

            near = difflib.get_close_matches(str(name), self._specs, n=3, cutoff=0.0)
            raise UnknownKeyError(
                f"{self.path} has no kernel {name}; the nearest of its {len(self)}: "
                f"{', '.join(near)}. Build it in: tvmconv build {name} --machine "
                f"{self.variant.machine} --output PATH"
            )
        if name not in self._kernels:
            # Two threads may both come here; setdefault keeps one kernel.
            self._kernels.setdefault(name, self._kernel(name))
        return self._kernels[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    @abc.abstractmethod
    def _where(self) -> str:
        """The place in words, for people."""

    @abc.abstractmethod
    def _kernel(self, key: str) -> _K:
        """Make the kernel of a key that the bundle has."""

    @abc.abstractmethod
    def _function(self, symbol: str) -> Any:
        """Find a compiled function, as the kernels call it."""

    def _parts(self, key: str) -> _Parts:
        """What every `CompiledKernel` is made of; no functions for an empty output."""
        entry = self.variant.kernels[key]
        function = pack = None
        if entry.symbol is not None:
            function = self._function(entry.symbol)
            pack = self._function(entry.pack.symbol) if entry.pack else None
        return self._specs[key], entry, self.variant.machine, function, pack
