"""Loads a bundle: checks everything it says of itself, opens it, and maps keys to kernels."""

from __future__ import annotations

import abc
import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from tvmconv import errors
from tvmconv.bundle import manifest as bundle
from tvmconv.bundle import variants
from tvmconv.hardware import host
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import engine
from tvmconv.runtime.cuda import opening as gpu
from tvmconv.runtime.cuda.device import Gpu
from tvmconv.runtime.cuda.kernel import GpuKernel
from tvmconv.runtime.kernel import Kernel
from tvmconv.runtime.model import Model

_K = TypeVar("_K", Kernel, GpuKernel)


class UnknownKeyError(errors.UnknownNameError, KeyError):
    """A library has no kernel for that key; a KeyError too, as a mapping must raise."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the message's repr


class _Kernels(Mapping[str, _K]):
    """What libraries for CPUs and GPUs have in common: kernels by `ConvSpec.key`, made when asked for."""

    def __init__(
        self,
        path: Path,
        manifest: bundle.Manifest,
        variant: bundle.Variant,
        specs: dict[str, ConvSpec],
        module: Any,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.variant = variant
        self._specs = specs
        self.module = module
        self._kernels: dict[str, _K] = {}

    def __getitem__(self, key: str | ConvSpec) -> _K:
        name = key.key if isinstance(key, ConvSpec) else key
        if name not in self._specs:
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
    def _kernel(self, key: str) -> _K:
        """Make the kernel of a key that the bundle has."""

    def _functions(self, entry: bundle.KernelEntry) -> tuple[Any, Any]:
        """The compiled function, and the one that packs the filter; None for what is not there."""
        if entry.symbol is None:
            return None, None
        pack = engine.function(self.module, entry.pack.symbol) if entry.pack else None
        return engine.function(self.module, entry.symbol), pack


class Library(_Kernels[Kernel]):
    """The kernels of one bundle variant: a mapping from `ConvSpec.key` to `Kernel`.

    An index may also be the `ConvSpec` itself. `load` makes it.

    Attributes:
        path: the bundle's directory.
        manifest: everything that the bundle says of itself.
        variant: the part of it that was chosen for this machine.
        threads: how many threads each call uses.
        module: the opened kernel library, a ``tvm_ffi.Module``.

    """

    def __init__(
        self,
        path: Path,
        manifest: bundle.Manifest,
        variant: bundle.Variant,
        specs: dict[str, ConvSpec],
        threads: int,
        module: Any,
    ) -> None:
        super().__init__(path, manifest, variant, specs, module)
        self.threads = threads

    def __repr__(self) -> str:
        return (
            f"Library({str(self.path)!r}, {len(self)} kernels for {self.variant.machine}, "
            f"{self.threads} threads)"
        )

    def _kernel(self, key: str) -> Kernel:
        entry = self.variant.kernels[key]
        functions = self._functions(entry)
        return Kernel(self._specs[key], entry, self.variant.machine, self.threads, *functions)


class GpuLibrary(_Kernels[GpuKernel]):
    """The kernels of one bundle variant for a GPU: a mapping from `ConvSpec.key` to `GpuKernel`.

    An index may also be the `ConvSpec` itself. `load` makes it.

    Attributes:
        path, manifest, variant, module: as in `Library`.
        gpu: where the kernels run.

    """

    def __init__(
        self,
        path: Path,
        manifest: bundle.Manifest,
        variant: bundle.Variant,
        specs: dict[str, ConvSpec],
        gpu: Gpu,
        module: Any,
    ) -> None:
        super().__init__(path, manifest, variant, specs, module)
        self.gpu = gpu

    def __repr__(self) -> str:
        return (
            f"GpuLibrary({str(self.path)!r}, {len(self)} kernels for {self.variant.machine} on "
            f"{self.gpu.device})"
        )

    def _kernel(self, key: str) -> GpuKernel:
        entry = self.variant.kernels[key]
        functions = self._functions(entry)
        return GpuKernel(self._specs[key], entry, self.variant.machine, self.gpu, *functions)


@overload
def load(
    path: str | os.PathLike[str],
    threads: int | None = None,
    machine: str | None = None,
    device: Literal["cpu"] | None = None,
) -> Any: ...  # a Library, or a Model, by what the path holds
@overload
def load(
    path: str | os.PathLike[str],
    threads: int | None = None,
    machine: str | None = None,
    *,
    device: object,
) -> GpuLibrary: ...
def load(
    path: str | os.PathLike[str],
    threads: int | None = None,
    machine: str | None = None,
    device: object = None,
) -> Library | GpuLibrary | Model:
    """Open what `tvmconv.build` or `tvmconv.compile` made; neither TVM nor a compiler is needed.

    Args:
        path: the bundle's directory.
        threads: how many threads each call uses; None for all cores that this process may use
            (affinity and container limits counted), 1 to stay in the calling thread and start no
            others. Each Python thread that calls kernels gets a pool of its own, whose size is the
            first number above 1 that it meets.
        machine: the name of a variant, or of a board that it is for, to use instead of the best that
            runs here.
        device: where kernels run: ``"cpu"``, ``"cuda"`` (which is ``"cuda:0"``), ``"cuda:1"``, or a device
            object of PyTorch. None is the CPU, and the first GPU for a bundle that has nothing else.

    Returns:
        A mapping from `ConvSpec.key` (or the `ConvSpec`) to `Kernel`; for a GPU to `GpuKernel`. For a
        compiled model the `Model`.

    Raises:
        BundleError: the bundle is damaged, incomplete, or of a newer format. Everything is checked
            before any of its libraries is opened.
        IncompatibleMachineError: no variant, or not the one asked for, runs on this CPU and C library, or
            on that GPU; or there is no GPU or no driver.
        MissingToolError: CUDA's runtime library is missing, or the NVIDIA driver is older than CUDA 13.
        UnknownNameError: there is no variant ``machine``.
        ValueError, TypeError: ``threads`` is not a positive integer; there is no such ``device``.

    Sets the environment variable ``TVM_BIND_THREADS`` to 0 unless it is set, so that TVM pins no
    thread of this process to a core.

    A process forked from a thread that has run kernels on several threads computes serially in that
    thread, and hangs or aborts where it exits by anything but ``os._exit`` (which multiprocessing
    uses), because TVM waits for the pool's threads, which a fork does not copy. Servers that fork
    their workers should load in the worker, or with ``threads=1`` before the fork.

    """
    count = host.available_cores() if threads is None else _thread_count(threads)
    directory = Path(path)
    index = gpu.device_index(device)
    manifest = bundle.read_manifest(directory)
    if device is None and all(variant.gpu for variant in manifest.variants):
        index = 0
    if index is not None:
        return _load_on_gpu(directory, manifest, machine, index)
    variant = variants.choose(
        manifest,
        host.architecture(),
        host.cpu_features(),
        host.operating_system(),
        machine,
        host.glibc(),
    )
    specs = _specs(directory, manifest)
    bundle.verify_files(directory, variant)
    engine.open_runtime(directory, variant.runtime, manifest.tvm_ffi)
    module = engine.open_kernels(directory / variant.library, variant.sha256)
    if manifest.model is not None:
        return Model(directory, manifest, variant, count, module)
    return Library(directory, manifest, variant, specs, count, module)


def _load_on_gpu(
    directory: Path, manifest: bundle.Manifest, machine: str | None, index: int
) -> GpuLibrary:
    device, devices = gpu.find_device(index)
    variant = gpu.choose_variant(manifest, device, machine)
    specs = _specs(directory, manifest)
    bundle.verify_files(directory, variant)
    engine.open_runtime(directory, variant.runtime, manifest.tvm_ffi)
    place = gpu.open_gpu(directory, manifest, variant, device, devices)
    module = engine.open_kernels(directory / variant.library, variant.sha256)
    return GpuLibrary(directory, manifest, variant, specs, place, module)


def _specs(directory: Path, manifest: bundle.Manifest) -> dict[str, ConvSpec]:
    try:
        return {key: ConvSpec.from_key(key) for key in manifest.keys}
    except ValueError as error:
        raise errors.BundleError(
            f"{directory}: {error} It was built by tvmconv {manifest.tvmconv}; run: "
            f"pip install 'tvmconv>={manifest.tvmconv}'"
        ) from error


def _thread_count(threads: object) -> int:
    if not isinstance(threads, int) or isinstance(threads, bool):
        raise TypeError(f"threads must be None or an int, {threads!r} was given")
    if threads < 1:
        raise ValueError(
            f"threads must be at least 1, {threads} was given; None takes all cores of the process"
        )
    return threads
