"""What a search tries, and what came out: plain data that every step of the tuner passes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

PACK = "pack"  # symbol of a packing function in its library
Identity = tuple[str, tuple[tuple[str, int | str], ...]]


@dataclass(frozen=True)
class Candidate:
    """A schedule by name, with decisions."""

    schedule: str
    decisions: Mapping[str, int | str]

    @property
    def identity(self) -> Identity:
        """Equal for candidates that mean the same kernel."""
        return (self.schedule, tuple(sorted(self.decisions.items())))


@dataclass(frozen=True)
class Measurement:
    """Seconds of one call, as if the machine were always equally fast, or what went wrong."""

    candidate: Candidate
    seconds: float | None
    error: str | None = None


@dataclass(frozen=True)
class Built:
    """A compiled candidate.

    Attributes:
        library: shared library that holds its function.
        symbol: the function (data, packed filter, bias?, residual?, out).
        pack_library: library of the function (filter, packed) that packs the filter; None where the
            filter stays as it is.
        packed_shape, packed_dtype: of the packed filter.
        pack_symbol: of that function.
        workspace_bytes: as in `hardware.Function`.
        macs: multiply-adds that it does at least (`Schedule.macs`): what says which times are possible.
    """

    library: str
    symbol: str
    pack_library: str | None = None
    packed_shape: tuple[int, ...] = ()
    packed_dtype: str = ""
    workspace_bytes: int = 0
    pack_symbol: str = PACK
    macs: int = 0

    def placed(self, folder: Path) -> Built:
        """Return the same with its files in ``folder``; with an empty path, by name alone."""
        packing = self.pack_library
        return replace(
            self,
            library=str(folder / Path(self.library).name),
            pack_library=None if packing is None else str(folder / Path(packing).name),
        )


@dataclass(frozen=True)
class Failure:
    """Why a candidate could not be compiled or measured, in words for a person.

    ``spoilt``: the process in which that happened must not be asked anything more.
    """

    text: str
    spoilt: bool = False
