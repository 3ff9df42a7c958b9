"""Sparse constants: TACO's levels, as `SparsityParameters` of schema.fbs describes them, to a dense array."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import tflite

from tvmconv.models.graph import Array

_VECTORS = {1: "Int32Vector", 2: "Uint16Vector", 3: "Uint8Vector"}  # SparseIndexVector's union


def densify(sparsity: Any, values: Array, shape: tuple[int, ...]) -> Array:
    """Return the dense array of a sparse tensor.

    Levels are walked in the traversal order, all entries of a level at once: ``positions`` of the entries
    so far, ``indices`` of each along the levels so far. Levels behind the tensor's rank are axes within a
    block.

    Args:
        sparsity: `tflite.SparsityParameters`.
        values: those that are stored, in the order of the last level's positions.
        shape: of the dense array.

    Raises:
        ValueError, IndexError: they contradict each other.
    """
    order = [int(axis) for axis in _vector(sparsity, "TraversalOrder")]
    blocked = [int(axis) for axis in _vector(sparsity, "BlockMap")]
    rank = len(shape)
    levels = sparsity.DimMetadataLength()
    # Counts first: a damaged one may be 2**32, more than a list of it has room for.
    if not levels == len(order) == rank + len(blocked) or sorted(order) != list(range(levels)):
        raise ValueError(f"a sparse tensor of shape {shape} has the traversal order {order}")
    positions, indices = np.zeros(1, np.int64), np.zeros((0, 1), np.int64)
    block = [1] * rank
    for level in range(levels):
        metadata = sparsity.DimMetadata(level)
        if order[level] >= rank:
            block[blocked[order[level] - rank]] *= metadata.DenseSize()
        parents, positions, along = _enter(metadata, positions, prod(shape))
        indices = np.concatenate([indices[:, parents], along[None]])
    full = np.zeros((rank, positions.size), np.int64)
    for axis, along in zip(order, indices, strict=True):
        if axis < rank:
            full[axis] += along * block[axis]
        else:
            full[blocked[axis - rank]] += along
    if any(np.any((along < 0) | (along >= size)) for along, size in zip(full, shape, strict=True)):
        raise IndexError(f"a sparse tensor of shape {shape} has values outside of it")
    dense = np.zeros(shape, values.dtype)
    dense[tuple(full)] = values[positions]
    return dense


def _enter(metadata: Any, positions: Array, most: int) -> tuple[Array, Array, Array]:
    """Entries of one level below ``positions``: of each its parent, its position and its index."""
    if metadata.Format() == tflite.DimensionType.DENSE:
        size = metadata.DenseSize()
        if size < 0 or positions.size * size > most:
            raise ValueError("a sparse tensor has more entries than elements")
        along = np.tile(np.arange(size), positions.size)
        parents = np.repeat(np.arange(positions.size), size)
        return parents, positions[parents] * size + along, along
    segments = _union(metadata.ArraySegmentsType(), metadata.ArraySegments())
    stored = _union(metadata.ArrayIndicesType(), metadata.ArrayIndices())
    starts, counts = segments[positions], segments[positions + 1] - segments[positions]
    if np.any(starts < 0) or np.any(counts < 0) or counts.sum() > most:
        raise ValueError("the segments of a sparse tensor do not grow")
    parents = np.repeat(np.arange(positions.size), counts)
    within = np.arange(parents.size) - np.repeat(np.cumsum(counts) - counts, counts)
    entered = starts[parents] + within
    return parents, entered, stored[entered]


def _vector(table: Any, name: str) -> Array:
    found: Array = getattr(table, f"{name}AsNumpy")()
    return found if getattr(table, f"{name}Length")() else np.zeros(0, np.int64)


def _union(kind: int, table: Any) -> Array:
    vector = getattr(tflite, _VECTORS[kind])()
    vector.Init(table.Bytes, table.Pos)
    return _vector(vector, "Values").astype(np.int64)
