"""The kernels of a bundle for CPUs."""

from __future__ import annotations

from pathlib import Path

from tvmconv import errors
from tvmconv.bundle import manifest as bundle
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import abi
from tvmconv.runtime.kernel import Kernel
from tvmconv.runtime.kernels import Kernels


class Library(Kernels[Kernel, int]):
    """The kernels of one bundle variant: a mapping from `ConvSpec.key` to `Kernel`.

    An index may also be the `ConvSpec` itself. `load` makes it.

    Attributes:
        path: the bundle's directory.
        manifest: everything that the bundle says of itself.
        variant: the part of it that was chosen for this machine.
        threads: how many threads each call uses.
        mapped: the opened kernel library.

    """

    @property
    def threads(self) -> int:
        """How many threads each call uses."""
        return self._place

    def _where(self) -> str:
        return f", {self.threads} threads"

    def _kernel(self, key: str) -> Kernel:
        return Kernel(*self._parts(key), self.threads)

    def _function(self, symbol: str) -> abi.Function:
        return self.mapped.function(symbol)


def specs(
    directory: Path, manifest: bundle.Manifest, variant: bundle.Variant
) -> dict[str, ConvSpec]:
    """Return what the keys of a bundle spell; BundleError for one that this package cannot read."""
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
                f"{bundle.remake(manifest.model is not None)}"
            )
    return specs
