"""Compares the values of a compiled model with those of the model that it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tvmconv.bundle.model_entries import TensorEntry
from tvmconv.models.graph import Array

# Of an output's largest value. XNNPACK itself is 3e-4 from LiteRT's own reference kernels on the mask of
# MediaPipe's pose; mistaken kernels are off by 1e-2 and more.
TOLERANCE = 1e-3
TOLERANCE_SOURCE = "three times what XNNPACK differs from LiteRT's own reference kernels"


@dataclass(frozen=True)
class Difference:
    """How far one array is from what it should be.

    Attributes:
        name: of the output, or of the value.
        absolute: the largest error; infinite where only one of the two is a number.
        largest: the largest expected value.
        allowed: the largest error that passes; 1 for bytes, 0 for other integers.
        place: what makes the value, for people; empty for outputs.
    """

    name: str
    absolute: float
    largest: float
    allowed: float
    place: str = ""

    @property
    def relative(self) -> float:
        """The error, of the largest value."""
        if self.absolute == 0:
            return 0.0
        return self.absolute / self.largest if self.largest else float("inf")

    @property
    def passes(self) -> bool:
        """Whether the error is no larger than allowed."""
        return self.absolute <= self.allowed


def difference(
    name: str, made: Array, expected: Array, tolerance: float = TOLERANCE, place: str = ""
) -> Difference:
    """Return how far ``made`` is from ``expected``.

    Floats may be off by ``tolerance`` of the largest expected value, bytes, which stand for numbers, by one,
    other integers and booleans not at all. What
    is not a finite number must be the same in both. Another shape is off by infinity.
    """
    if made.shape != expected.shape:
        return Difference(name, float("inf"), 0.0, 0.0, place)
    a, b = made.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(b)
    largest = float(np.abs(b[finite]).max(initial=0.0))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        errors = np.where(same, 0.0, np.where(finite & np.isfinite(a), np.abs(a - b), np.inf))
    allowed = 1.0 if made.dtype in (np.int8, np.uint8) else 0.0
    allowed = tolerance * largest if made.dtype.kind == "f" else allowed
    return Difference(name, float(errors.max(initial=0.0)), largest, allowed, place)


def random_inputs(entries: Iterable[TensorEntry], seed: int) -> dict[str, Array]:
    """Return an array for each input: floats between 0 and 1, as images have, bytes of all values.

    Other integers are 0 or 1: models use them as indices and as switches.
    """
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for each in entries:
        kind = np.dtype(each.dtype)
        if kind.kind == "f":
            made[each.name] = rng.uniform(0, 1, each.shape).astype(kind)
        elif kind.itemsize == 1 and kind.kind in "iu":
            limits = np.iinfo(kind)
            made[each.name] = rng.integers(limits.min, limits.max + 1, each.shape).astype(kind)
        else:
            made[each.name] = rng.integers(0, 2, each.shape).astype(kind)
    return made


def given_inputs(
    entries: Iterable[TensorEntry], files: Mapping[str, str], seed: int
) -> dict[str, Array]:
    """Return arrays of ``files`` (name of an input -> .npy), and random ones for the others.

    Raises ValueError for an unknown name, and for a file of another shape or dtype.
    """
    entries = tuple(entries)
    inputs = random_inputs(entries, seed)
    for name, file in files.items():
        if name not in inputs:
            raise ValueError(f"--input {name}: the model's inputs are {', '.join(inputs)}")
        array = np.load(file, allow_pickle=False)
        wanted = inputs[name]
        if array.shape != wanted.shape or array.dtype != wanted.dtype:
            raise ValueError(
                f"--input {name}: {file} has {array.shape} {array.dtype}, the model takes "
                f"{wanted.shape} {wanted.dtype}"
            )
        inputs[name] = array
    return inputs
