"""Which pixels a resized image takes, with which weights: TensorFlow's and ONNX's rules along one axis."""

from __future__ import annotations

import numpy as np

from tvmconv.models.graph import Array

# Of the cubic filter by Keys; ONNX's and PyTorch's default.
CUBIC: float = -0.75


def resize(
    data: Array, size: tuple[int, int], method: str, coordinates: str, rounding: str
) -> Array:
    """Resize NHWC images; attributes are those of the operator ``resize``."""
    for axis, extent in zip((1, 2), size, strict=True):
        pixels, weights = taps(data.shape[axis], extent, method, coordinates, rounding)
        taken = np.take(data, pixels, axis)  # both indices stand where the axis stood
        spread = weights.reshape(weights.shape + (1,) * (data.ndim - 1 - axis))
        data = (taken * spread.astype(data.dtype)).sum(axis=axis + 1)
    return data


def taps(size: int, out: int, method: str, coordinates: str, rounding: str) -> tuple[Array, Array]:
    """For each of ``out`` pixels those of ``size`` that it takes and their weights, [out, taps] each.

    nearest takes one, bilinear two, cubic four.
    """
    where = source(size, out, coordinates)
    if method == "nearest":
        pixels = round_pixels(where, rounding)[:, None]
        weights = np.ones((out, 1))
    else:
        first = np.floor(where)
        part = (where - first)[:, None]
        if method == "bilinear":
            offsets, weights = np.arange(2), np.concatenate([1 - part, part], axis=1)
        else:
            offsets = np.arange(-1, 3)
            weights = cubic(np.abs(part - offsets))
        pixels = first[:, None].astype(np.int64) + offsets
    return np.clip(pixels, 0, max(size - 1, 0)), weights


def source(size: int, out: int, coordinates: str) -> Array:
    """Coordinates in the input of the centres of the output's pixels; exact where they are whole."""
    at = np.arange(out, dtype=np.float64)
    if coordinates == "half_pixel":
        return (at + 0.5) * size / out - 0.5
    if coordinates == "align_corners":
        return at * (size - 1) / max(out - 1, 1)
    return at * size / out


def round_pixels(where: Array, rounding: str) -> Array:
    """Pixels next to coordinates, by one of the operator's rules; half is away from zero in ``round``."""
    if rounding == "round":
        rounded = np.trunc(where + np.copysign(0.5, where))
    elif rounding == "half_down":
        rounded = np.ceil(where - 0.5)
    else:
        rounded = np.floor(where) if rounding == "floor" else np.ceil(where)
    pixels: Array = rounded.astype(np.int64)
    return pixels


def cubic(distance: Array) -> Array:
    """Weight of a pixel at that distance."""
    d, a = distance, CUBIC
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    weights: Array = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    return weights
