"""Leaves out rows and columns of a filter that see only padding, as with a dilation of an image's size."""

from __future__ import annotations

from dataclasses import replace

from tvmconv.problem.spec import ConvSpec

Taps = tuple[slice, slice]


def seeing(spec: ConvSpec) -> tuple[ConvSpec, Taps]:
    """Return the same convolution with the taps that see the image, and which those are: rows, columns.

    ``filter[rows, columns]`` is the filter of what is returned. A spec without such taps, or whose rest
    begins inside of the image, which no padding can say, is returned as it is.
    """
    top, bottom, left, right = spec.pads
    rows = _along(spec.out_height, spec.in_height, spec.kernel_height, 0, spec, (top, bottom))
    columns = _along(spec.out_width, spec.in_width, spec.kernel_width, 1, spec, (left, right))
    if spec.is_empty or (rows is None and columns is None):
        return spec, (slice(None), slice(None))
    (first, count, above, below) = rows or (0, spec.kernel_height, top, bottom)
    (begin, wide, before, behind) = columns or (0, spec.kernel_width, left, right)
    smaller = replace(
        spec,
        filter_shape=(count, wide, *spec.filter_shape[2:]),
        pads=(above, below, before, behind),
        dilations=(
            spec.dilations[0] if count > 1 else 1,
            spec.dilations[1] if wide > 1 else 1,
        ),
    )
    if smaller.output_shape != spec.output_shape:
        return spec, (slice(None), slice(None))
    return smaller, (slice(first, first + count), slice(begin, begin + wide))


def _along(
    outputs: int, size: int, taps: int, axis: int, spec: ConvSpec, pads: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """First tap that sees the image, how many, and the padding they need; None where nothing changes."""
    stride, dilation = spec.strides[axis], spec.dilations[axis]
    seen = [
        tap
        for tap in range(taps)
        if tap * dilation - pads[0] < size and (outputs - 1) * stride + tap * dilation >= pads[0]
    ]
    if not seen or len(seen) == taps:
        return None
    first, count = seen[0], seen[-1] - seen[0] + 1
    before = pads[0] - first * dilation
    behind = (outputs - 1) * stride + (count - 1) * dilation + 1 - size - before
    if before < 0:
        return None
    return first, count, before, max(0, behind)
