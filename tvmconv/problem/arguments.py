"""TensorFlow's argument forms, turned into plain integers and strings.

Each function takes what a caller may write and returns its one canonical form, or raises what
TensorFlow's graph mode raises: ``TypeError`` for a wrong type, ``ValueError`` for a wrong value.
One rule is stricter on purpose: a stride such as 1.5, which TensorFlow silently truncates, is a
``TypeError``.

NumPy is not imported: its integers and arrays are recognised by ``operator.index`` and iteration,
its dtypes by their names.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Final, SupportsIndex, TypeVar, cast

from tvmconv.problem.fields import Pads

T = TypeVar("T")

DATA_FORMATS: Final = ("NHWC", "NCHW")


def integer(value: object, name: str) -> int:
    """Return ``value`` as a plain int; a float, a string or None is a ``TypeError``."""
    try:
        return int(operator.index(cast(SupportsIndex, value)))
    except TypeError:
        raise TypeError(
            f"{name} must be an integer, but got {value!r} of type {type(value).__name__}."
        ) from None


def shape(value: object, name: str) -> tuple[int, ...]:
    """Return a shape, any iterable of integers >= 0 (``tf.TensorShape`` too), as a tuple."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"The shape of {name} must be a sequence of integers, but got {value!r}.")
    extents = tuple(integer(extent, f"Each extent of the shape of {name}") for extent in value)
    if any(extent < 0 for extent in extents):
        raise ValueError(f"The shape of {name} must not have negative extents, but got {extents}.")
    return extents


def dtype_name(value: object, allowed: Sequence[str], name: str) -> str:
    """Name a dtype that is given as a string, ``np.dtype``, ``tf.DType`` or NumPy scalar type.

    Raises ``TypeError``, as TensorFlow does, when the name is not among ``allowed``.
    """
    named = value
    if not isinstance(value, str):
        # A scalar type (np.float32) has only __name__; np.dtype and tf.DType have .name.
        named = value.__name__ if isinstance(value, type) else getattr(value, "name", None)
    if named not in allowed:
        raise TypeError(
            f"Value for dtype of {name} is not in the list of allowed values: "
            f"{', '.join(allowed)}. Received: {value!r}. Cast the arrays to one of these."
        )
    return cast(str, named)


def data_format_name(value: object) -> str:
    """Return ``"NHWC"`` or ``"NCHW"``; None means NHWC."""
    if value is None:
        return "NHWC"
    if not isinstance(value, str):
        raise TypeError(f"data_format must be a string, but got data_format={value!r}.")
    if value not in DATA_FORMATS:
        raise ValueError(
            f'data_format must be "NHWC" or "NCHW" (upper case), but got data_format={value!r}.'
        )
    return str(value)


def check_rates(pair: tuple[int, int], name: str, given: object) -> None:
    """Raise ``ValueError`` unless both strides or both dilations are at least 1."""
    for rate in pair:
        if rate < 1 and name == "strides":
            raise ValueError(f"Stride must be > 0, but got {rate} in strides={given!r}.")
        if rate < 1:
            raise ValueError(f"Dilation rate must be >= 1, but got {rate} in {name}={given!r}.")


def spatial_pair(value: object, name: str, data_format: str) -> tuple[int, int]:
    """Return strides or dilations in any of conv2d's forms as (height, width).

    Args:
        value: None (1 in both), an int (both), or a sequence of 1 (both), 2 (height, width) or 4
            ints in ``data_format``'s order, of which those for batch and channels must be 1.
        name: ``"strides"`` or ``"dilations"``, for the messages.
        data_format: ``"NHWC"`` or ``"NCHW"``.

    Raises:
        TypeError: not an int or a sequence of ints.
        ValueError: a length other than 1, 2 or 4, a value below 1, or a batch or channel rate.

    """
    if value is None:
        return (1, 1)
    given = _int_list(value, name)
    if len(given) == 4:
        return _spatial_of_four(given, name, data_format)
    if len(given) not in (1, 2):
        raise ValueError(
            f"{name} should be of length 1, 2 or 4. "
            f"Received: {name}={value!r} of length {len(given)}"
        )
    pair = (given[0], given[-1])
    check_rates(pair, name, value)
    return pair


def strict_depthwise_strides(value: object, data_format: str) -> tuple[int, int]:
    """Read strides as ``tf.nn.depthwise_conv2d`` takes them: a list or tuple of exactly 4 ints.

    Unlike TensorFlow's CPU kernel, unequal strides in height and width are allowed.
    """
    if not isinstance(value, (list, tuple)):
        raise TypeError(
            "Expected list for 'strides' argument to 'depthwise_conv2d', "
            f"but got strides={value!r}. Write [1, stride, stride, 1] "
            "(NCHW: [1, 1, stride, stride])."
        )
    if len(value) != 4:
        raise ValueError(
            "depthwise_conv2d requires the strides argument to contain 4 values, "
            f"but got {len(value)}: strides={value!r}."
        )
    return _spatial_of_four(_int_list(value, "strides"), "strides", data_format)


def strict_depthwise_dilations(value: object) -> tuple[int, int]:
    """Read dilations as ``tf.nn.depthwise_conv2d`` takes them: None or 2 ints, (height, width)."""
    if value is None:
        return (1, 1)
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(
            f"dilations of depthwise_conv2d must be None or 2 integers, [height, width], "
            f"but got dilations={value!r}."
        )
    given = _int_list(value, "dilations")
    if len(given) != 2:
        raise ValueError(
            "dilations of depthwise_conv2d must be of length 2, [height, width]. "
            f"Received: dilations={value!r} of length {len(given)}"
        )
    pair = (given[0], given[1])
    check_rates(pair, "dilations", value)
    return pair


def padding_form(padding: object, data_format: str) -> str | Pads:
    """Return ``"SAME"``, ``"VALID"``, or explicit padding as (top, bottom, left, right) in pixels.

    Explicit padding is a list or tuple of 4 pairs in ``data_format``'s order; the pairs for batch
    and channels must be zero. Whole floats such as 1.0 are accepted there, as in TensorFlow.
    """
    if isinstance(padding, str):
        if padding in ("SAME", "VALID"):
            return str(padding)
        explicit = " To use explicit padding, padding must be a list." * (padding == "EXPLICIT")
        raise ValueError(
            f'padding must be "SAME", "VALID" (upper case) or a list of 4 pairs, '
            f"but got padding={padding!r}.{explicit}"
        )
    if not isinstance(padding, (list, tuple)):
        raise TypeError(
            f'padding must be "SAME", "VALID" or a list of 4 pairs, but got padding={padding!r}.'
        )
    if len(padding) != 4:
        raise ValueError(
            f"When padding is a list, it must be of size 4. Received: padding={padding!r} "
            f"of size {len(padding)}"
        )
    pairs: list[tuple[int, int]] = []
    for pair in padding:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError(
                "When padding is a list, each element of padding must be a list/tuple of size 2. "
                f"Received: padding={padding!r} with element {pair!r}"
            )
        pairs.append((_pad(pair[0], padding), _pad(pair[1], padding)))
    batch, height, width, channels = _in_nhwc_order(pairs, data_format)
    if any(batch) or any(channels):
        raise ValueError(
            "Nonzero explicit padding in the batch or depth dimensions is not supported: "
            f"padding={padding!r} with data_format {data_format!r}."
        )
    return (*height, *width)


def window_extent(kernel: int, dilation: int) -> int:
    """Count the input pixels that a dilated kernel spans, first to last."""
    return (kernel - 1) * dilation + 1


def same_pads(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return one dimension's SAME padding, (before, after), as TensorFlow's kernel_shape_util.cc.

    The output has ceil(size / stride) pixels; an odd pixel of padding goes after.
    """
    out = -(-size // stride)
    total = max((out - 1) * stride + window_extent(kernel, dilation) - size, 0)
    return total // 2, total - total // 2


def check_window_fits(
    axis: str, size: int, pads: tuple[int, int], kernel: int, dilation: int
) -> None:
    """Raise ``ValueError`` when a dilated kernel exceeds the padded input, even in batch 0."""
    extent, padded = window_extent(kernel, dilation), size + sum(pads)
    if extent > padded:
        raise ValueError(
            f"Negative dimension size caused by subtracting {extent} from {padded}: the filter's "
            f"{axis} {kernel} with dilation {dilation} exceeds the input's {axis} {size} with "
            f'padding {pads}. Use padding="SAME", pad more, or use a smaller filter.'
        )


def resolve_padding(
    padding: object,
    data_format: str,
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
) -> Pads:
    """Resolve any form of padding to (top, bottom, left, right); pairs are (height, width).

    SAME never fails on size. VALID and explicit padding require that the window fits.
    """
    form = padding_form(padding, data_format)
    if form == "SAME":
        return (
            *same_pads(size[0], kernel[0], strides[0], dilations[0]),
            *same_pads(size[1], kernel[1], strides[1], dilations[1]),
        )
    top, bottom, left, right = (0, 0, 0, 0) if isinstance(form, str) else form
    check_window_fits("height", size[0], (top, bottom), kernel[0], dilations[0])
    check_window_fits("width", size[1], (left, right), kernel[1], dilations[1])
    return (top, bottom, left, right)


def _int_list(value: object, name: str) -> list[int]:
    # Before iterating, because a NumPy integer or 0-d array is a scalar with an __iter__.
    try:
        return [int(operator.index(cast(SupportsIndex, value)))]
    except TypeError:
        pass
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(
            f"{name} must be an integer or a sequence of integers, but got {name}={value!r}."
        )
    return [integer(element, f"Each element of {name}") for element in value]


def _in_nhwc_order(four: Sequence[T], data_format: str) -> tuple[T, T, T, T]:
    a, b, c, d = four
    return (a, b, c, d) if data_format == "NHWC" else (a, c, d, b)


def _spatial_of_four(four: Sequence[int], name: str, data_format: str) -> tuple[int, int]:
    batch, height, width, channels = _in_nhwc_order(four, data_format)
    if batch != 1 or channels != 1:
        raise ValueError(
            f"Current implementation does not support {name} in the batch and depth dimensions: "
            f"{name}={list(four)} with data_format {data_format!r} must be 1 there."
        )
    check_rates((height, width), name, list(four))
    return height, width


def _pad(value: object, padding: object) -> int:
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    pixels = integer(whole, f"Each element of padding={padding!r}")
    if pixels < 0:
        raise ValueError(
            f"All elements of explicit padding must be nonnegative, but got padding={padding!r}."
        )
    return pixels
