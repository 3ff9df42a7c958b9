"""Loads a bundle: checks everything it says of itself, opens it, and maps keys to kernels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from tvmconv import errors
from tvmconv.bundle import manifest as bundle
from tvmconv.bundle import reading, variants
from tvmconv.hardware import host
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import engine
from tvmconv.runtime.kernel import Kernel
from tvmconv.runtime.kernels import Kernels
from tvmconv.runtime.model import Model
from tvmconv.runtime.threads import thread_count

if TYPE_CHECKING:
    from tvmconv.runtime.cuda.library import GpuLibrary


class Library(Kernels[Kernel, int]):
    """The kernels of one bundle variant: a mapping from `ConvSpec.key` to `Kernel`.

    An index may also be the `ConvSpec` itself. `load` makes it.

    Attributes:
        path: the bundle's directory.
        manifest: everything that the bundle says of itself.
        variant: the part of it that was chosen for this machine.
        threads: how many threads each call uses.
        module: the opened kernel library, a ``tvm_ffi.Module``.

    """

    @property
    def threads(self) -> int:
        """How many threads each call uses."""
        return self._place

    def _where(self) -> str:
        return f", {self.threads} threads"

    def _kernel(self, key: str) -> Kernel:
        return Kernel(*self._parts(key), self.threads)


_Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@overload
def load(
    path: str | os.PathLike[str],
    threads: int | None = None,
    machine: str | None = None,
    device: Literal["cpu"] | None = None,
    trusted: _Paths | None = None,
) -> Any: ...  # a Library, or a Model, by what the path holds
@overload
def load(
    path: str | os.PathLike[str],
    threads: int | None = None,
    machine: str | None = None,
    *,
    device: object,
    trusted: _Paths | None = None,
) -> GpuLibrary: ...
def load(
    path: str | os.PathLike[str],
    threads: int | None = None,
    machine: str | None = None,
    device: object = None,
    trusted: _Paths | None = None,
) -> Library | GpuLibrary | Model:
    """Open what `tvmconv.build` or `tvmconv.compile` made; neither TVM nor a compiler is needed.

    Args:
        path: the bundle's directory.
        threads: how many threads each call uses, at most 8 for each core that this process may use;
            1 to stay in the calling thread and start no others. None for what TVMCONV_NUM_THREADS,
            TVM_NUM_THREADS or OMP_NUM_THREADS say, the first that is set, and else for all cores that
            this process may use (affinity and container limits counted). Calls above 1 from other
            Python threads than the main one take turns.
        machine: the name of a variant, or of a board that it is for, to use instead of the best that
            runs here.
        device: where kernels run: ``"cpu"``, ``"cuda"`` (which is ``"cuda:0"``), ``"cuda:1"``, or a device
            object of PyTorch. None is the CPU, and the first GPU for a bundle that has nothing else.
        trusted: file of a public key, or several, one of which must have signed the bundle
            (``tvmconv build --sign``). None asks for no signature: whoever can write a bundle can then
            run code in this process.

    Returns:
        A mapping from `ConvSpec.key` (or the `ConvSpec`) to `Kernel`; for a GPU to `GpuKernel`. For a
        compiled model the `Model`.

    Raises:
        BundleError: the bundle is damaged, incomplete, or of a newer format. Everything is checked
            before any of its libraries is opened.
        UntrustedBundleError: no key of ``trusted`` signed the bundle.
        SigningKeyError: a file of ``trusted`` holds no public key.
        IncompatibleMachineError: no variant, or not the one asked for, runs on this CPU and C library, or
            on that GPU; or there is no GPU or no driver.
        MissingToolError: CUDA's runtime library is missing, or the NVIDIA driver is older than CUDA 13; or
            ``trusted`` is given and the package cryptography is not installed.
        UnknownNameError: there is no variant ``machine``.
        ValueError, TypeError: ``threads``, or the variable TVMCONV_NUM_THREADS, is not a number from 1 on, or
            is too large; there is no such ``device``.

    Each file is read once, checked, and mapped from a copy of its own in memory: a bundle may be replaced,
    overwritten or deleted while it is used. Kernels are unmapped when the library and everything that was
    taken from it are gone; those for GPUs stay.

    Sets two environment variables unless they are set: ``TVM_BIND_THREADS`` to 0, so that TVM pins no
    thread of this process to a core, and ``TVM_THREAD_POOL_SPIN_COUNT`` to 100, so that workers without
    work sleep soon.

    A process forked from a main thread that has run kernels on several threads hangs or aborts where
    it exits by anything but ``os._exit`` (which multiprocessing uses), because TVM waits for the
    pool's threads, which a fork does not copy. Servers that fork their workers should load in the
    worker, or with ``threads=1`` before the fork.

    """
    count = thread_count(threads)
    directory, index = Path(path), _gpu_index(device)

    def choose(manifest: bundle.Manifest) -> bundle.Variant:
        if index is not None or (device is None and all(each.gpu for each in manifest.variants)):
            from tvmconv.runtime.cuda import opening as gpu

            return gpu.choose_variant(manifest, gpu.find_device(index or 0)[0], machine)
        here = host.architecture(), host.cpu_features(), host.operating_system()
        return variants.choose(manifest, *here, machine, host.glibc())

    contents = reading.read(directory, choose, _key_files(trusted))
    manifest, variant = contents.manifest, contents.variant
    specs = _specs(directory, manifest, variant)
    engine.open_runtime(contents.files[variant.runtime.file], manifest.tvm_ffi)
    library = contents.files[variant.library]
    if variant.gpu is None:
        kernels = engine.open_kernels(library)
        if contents.weights is not None:
            weights = contents.weights.contents
            return Model(directory, manifest, variant, count, kernels, weights)
        return Library(directory, manifest, variant, specs, count, kernels)
    from tvmconv.runtime.cuda import opening as gpu
    from tvmconv.runtime.cuda.library import GpuLibrary

    place = gpu.open_gpu(contents, *gpu.find_device(index or 0))
    # For good, because a CUDA graph that captured kernels does not keep their code.
    kernels = engine.open_kernels(library, keep=True)
    return GpuLibrary(directory, manifest, variant, specs, place, kernels)


def _gpu_index(device: object) -> int | None:
    """The number of a GPU; None for the CPU, for which nothing of ``runtime.cuda`` is imported."""
    if device is None or (isinstance(device, str) and device == "cpu"):
        return None
    from tvmconv.runtime.cuda.opening import device_index

    return device_index(device)


def _specs(
    directory: Path, manifest: bundle.Manifest, variant: bundle.Variant
) -> dict[str, ConvSpec]:
    try:
        specs = {key: ConvSpec.from_key(key) for key in manifest.keys}
    except ValueError as error:
        raise errors.BundleError(
            f"{directory}: {error} It was built by tvmconv {manifest.tvmconv}; run: "
            f"pip install 'tvmconv>={manifest.tvmconv}'"
        ) from error
    for key, spec in specs.items():
        if variant.kernels[key].symbol is None and not spec.is_empty:
            raise errors.BundleError(
                f"the manifest of {directory} names no function for {key}; make the bundle again: "
                f"{bundle.REBUILD}"
            )
    return specs


def _key_files(trusted: _Paths | None) -> list[Path]:
    if trusted is None:
        return []
    files = [trusted] if isinstance(trusted, str | os.PathLike) else list(trusted)
    if not files:
        raise ValueError("trusted is empty, so no bundle is trusted; None asks for no signature")
    return [Path(file) for file in files]
