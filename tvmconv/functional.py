"""TensorFlow's two convolution functions; what they need is compiled at the first call and kept.

For repeated calls with the same weights, `tvmconv.build` and ``bind`` are faster: these functions
read and rearrange the filter on every call.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tvmconv.building import kernel_cache
from tvmconv.problem.calls import spec_of_conv2d_call, spec_of_depthwise_call
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.taps import seeing
from tvmconv.runtime import tensors


def conv2d(
    input: object,
    filters: object,
    strides: object,
    padding: object,
    data_format: object = "NHWC",
    dilations: object = None,
    name: object = None,
) -> Any:
    """Compute what ``tf.nn.conv2d`` computes, with a kernel made for this machine.

    The kernel of a problem is compiled once, from its tuning record if there is one, and kept on
    disk: in ``$TVMCONV_CACHE_DIR`` if that is set, else in the user's cache directory
    (``~/.cache/tvmconv`` on Linux); it holds ``$TVMCONV_CACHE_MB`` megabytes at most (1024).
    Calls use as many threads as TVMCONV_NUM_THREADS, TVM_NUM_THREADS
    or OMP_NUM_THREADS say, else all cores that this process may use, and may be made from several
    threads and processes at once.

    float32 is computed in float32, by the sum that defines a convolution: `ConvSpec.tf32` is for specs only,
    and Winograd's algorithm, which spreads what one pixel holds over its neighbours, for `tvmconv.build`.

    Args:
        input: array of rank >= 4, in ``data_format`` order: a NumPy array or a CPU tensor with
            DLPack. Lists are not converted.
        filters: array (height, width, in_channels / groups, out_channels) of the same dtype.
        strides: None, an int, or 1, 2 (height, width) or 4 (``data_format`` order) ints.
        padding: ``"SAME"``, ``"VALID"``, or 4 pairs in ``data_format`` order.
        data_format: ``"NHWC"``, ``"NCHW"`` or None (NHWC).
        dilations: in the forms of ``strides``.
        name: accepted for TensorFlow's sake and ignored: there is no graph to name things in.

    Returns:
        A new array of the kind of ``input``.

    Raises:
        TypeError: an argument of a wrong type, an unsupported dtype, or two dtypes.
        ValueError: a wrong value; the message names the argument, the value and the rule.
        MissingToolError: the kernel has to be compiled, and TVM or a C compiler is missing.
        RecordError: the tuning record of this problem is damaged or no longer applies.

    """
    data = tensors.as_array(input, "input")
    window = tensors.as_array(filters, "filters")
    spec = spec_of_conv2d_call(
        data.shape, data.dtype, window.shape, window.dtype, strides, padding, data_format, dilations
    )
    return _compute(spec, input, filters)


def depthwise_conv2d(
    input: object,
    filter: object,
    strides: object,
    padding: object,
    data_format: object = None,
    dilations: object = None,
    name: object = None,
) -> Any:
    """Compute what ``tf.nn.depthwise_conv2d`` computes, with a kernel made for this machine.

    One extension: strides may differ in height and width, which TensorFlow's CPU kernel refuses.
    Kernels, errors and result are as in `conv2d`.

    Args:
        input: array of rank 4, in ``data_format`` order.
        filter: array (height, width, in_channels, multiplier) of the same dtype.
        strides: a list or tuple of 4 ints in ``data_format`` order.
        padding: ``"SAME"``, ``"VALID"``, or 4 pairs in ``data_format`` order.
        data_format: ``"NHWC"``, ``"NCHW"`` or None (NHWC).
        dilations: None or 2 ints (height, width); above 1 only where all strides are 1.
        name: accepted for TensorFlow's sake and ignored.

    """
    data, window = tensors.as_array(input, "input"), tensors.as_array(filter, "filter")
    spec = spec_of_depthwise_call(
        data.shape, data.dtype, window.shape, window.dtype, strides, padding, data_format, dilations
    )
    return _compute(spec, input, filter)


_seeing = functools.lru_cache(maxsize=1024)(seeing)


def _compute(spec: ConvSpec, data: object, window: object) -> Any:
    if spec.is_empty:  # needs neither a kernel nor TVM's runtime
        return tensors.like(data, np.empty(spec.output_shape, tensors.numpy_dtype(spec.out_dtype)))
    smaller, taps = _seeing(spec)
    if smaller != spec:
        window = np.ascontiguousarray(tensors.as_array(window, "filter")[taps])
    return kernel_cache.kernel(smaller)(data, window)
