"""The extents that a tensor expression loops over, read off a spec."""

from __future__ import annotations

from dataclasses import dataclass

from tvmconv.problem.spec import ConvSpec


def round_up(extent: int, tile: int) -> int:
    """The next multiple of ``tile``: the extent that is computed when it is covered with whole tiles."""
    return -(-extent // tile) * tile


@dataclass(frozen=True)
class Geometry:
    """A spec as one NHWC-ordered problem of rank 4; all extents in elements, pads as (top, left).

    A 1x1 convolution of stride 1 without padding treats every pixel alike, so its batch, rows and
    columns become one row of pixels: the same memory under another shape.
    """

    batch: int
    in_height: int
    in_width: int
    in_channels: int
    out_height: int
    out_width: int
    out_channels: int
    kernel_height: int
    kernel_width: int
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int]
    groups: int
    channels_last: bool

    @property
    def data_shape(self) -> tuple[int, int, int, int]:
        """Shape of data in its own layout."""
        return self._layout(self.in_height, self.in_width, self.in_channels)

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """Shape of out and residual in their own layout."""
        return self._layout(self.out_height, self.out_width, self.out_channels)

    @property
    def padded_height(self) -> int:
        """Rows that the kernel's windows reach, padding included: trailing unread rows are cut."""
        return (
            (self.out_height - 1) * self.strides[0]
            + (self.kernel_height - 1) * self.dilations[0]
            + 1
        )

    @property
    def padded_width(self) -> int:
        """Columns that the kernel's windows reach, padding included."""
        return (
            (self.out_width - 1) * self.strides[1] + (self.kernel_width - 1) * self.dilations[1] + 1
        )

    @property
    def needs_padding(self) -> bool:
        """Whether any window reaches outside the data."""
        top, left = self.pads
        return (
            top > 0
            or left > 0
            or self.padded_height > self.in_height
            or self.padded_width > self.in_width
        )

    def _layout(self, height: int, width: int, channels: int) -> tuple[int, int, int, int]:
        if self.channels_last:
            return (self.batch, height, width, channels)
        return (self.batch, channels, height, width)


def is_pointwise(spec: ConvSpec) -> bool:
    """Whether every output pixel depends on exactly the input pixel at its place."""
    return (
        spec.op == "conv2d"
        and spec.data_format == "NHWC"
        and (spec.kernel_height, spec.kernel_width) == (1, 1)
        and spec.strides == (1, 1)
        and spec.pads == (0, 0, 0, 0)
    )


def geometry(spec: ConvSpec) -> Geometry:
    """Return the extents of ``spec``, which must not be empty."""
    top, _, left, _ = spec.pads
    batch, in_size = spec.batch, (spec.in_height, spec.in_width)
    out_size = (spec.out_height, spec.out_width)
    if is_pointwise(spec):
        pixels = batch * spec.in_height * spec.in_width
        batch, in_size, out_size = 1, (1, pixels), (1, pixels)
    return Geometry(
        batch,
        *in_size,
        spec.in_channels,
        *out_size,
        spec.out_channels,
        spec.kernel_height,
        spec.kernel_width,
        spec.strides,
        spec.dilations,
        (top, left),
        spec.groups,
        spec.data_format == "NHWC",
    )
