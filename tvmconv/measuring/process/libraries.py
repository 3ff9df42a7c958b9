"""The libraries that a measuring process needs besides candidates, and opening them in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tvmconv.bundle.folder import whole_file
from tvmconv.runtime import engine, pools
from tvmconv.runtime.threads import thread_count


@dataclass(frozen=True)
class Libraries:
    """What a measuring process opens besides candidates.

    Attributes:
        runtime: ``libtvm_runtime.so``.
        roof: the roof's loops; None for a GPU, whose roof follows from its facts.
        cuda_runtime: ``libtvm_runtime_cuda.so`` of the same release; None for a CPU.
    """

    runtime: Path
    roof: Path | None = None
    cuda_runtime: Path | None = None

    def files(self) -> dict[str, Path]:
        """Those that there are, by their names here."""
        named = {"runtime": self.runtime, "roof": self.roof, "cuda_runtime": self.cuda_runtime}
        return {name: file for name, file in named.items() if file is not None}


def open_runtime(runtime: Path, threads: int) -> None:
    """Open ``libtvm_runtime`` in this process, and let kernels run on so many threads.

    Raises ValueError where these are more than `most_threads`.
    """
    thread_count(threads)
    engine.open_runtime(whole_file(runtime), "")
    pools.use_threads(threads)


def open_cuda_runtime(runtime: Path) -> None:
    """Open ``libtvm_runtime_cuda`` in this process, after the other and CUDA's own."""
    engine.open_cuda_runtime(whole_file(runtime), "")


def open_kernels(library: str) -> engine.KernelLibrary:
    """Open what `Compilers` made."""
    return engine.open_kernels(whole_file(Path(library)))
