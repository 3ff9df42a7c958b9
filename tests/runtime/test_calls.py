"""Kernels compute the right result from any array, or say which argument is wrong and why."""

import numpy as np
import plain_bundle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_bundle import (
    EMPTY,
    PACKED,
    PLAIN,
    RESIDUAL,
    SPECS,
    TINY,
    assert_right,
    operands,
    reference,
)
from runtime_calls import PRESENTATIONS, presented, shared_bundle

from tvmconv.runtime import empty_aligned, load


@pytest.fixture(scope="module")
def path():
    return shared_bundle()


@pytest.fixture(scope="module")
def library(path):
    return load(path)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_every_kernel_is_right(path, spec, threads):
    x, w, bias, residual = operands(spec)
    kernel = load(path, threads=threads)[spec]
    result = kernel(x, w, bias=bias, residual=residual)
    assert_right(spec, result, x, w, bias, residual)
    assert result.dtype == x.dtype
    assert result.ctypes.data % 64 == 0
    layer = kernel.bind(w, bias=bias)
    out = np.full(spec.output_shape, 7, x.dtype)
    assert layer(x, residual=residual, out=out) is out
    np.testing.assert_array_equal(out, result)


def test_kernels_say_what_they_are(library):
    kernel = library[PACKED.key]
    assert kernel.spec == PACKED
    assert (kernel.key, kernel.schedule) == (PACKED.key, "direct")
    assert kernel.decisions == {"width": plain_bundle.WIDTH}
    assert kernel.machine == plain_bundle.MACHINE
    assert "schedule='direct'" in repr(kernel.bind(*operands(PACKED)[1:3]))


def test_bound_weights_are_copies(library):
    for spec in (PACKED, RESIDUAL):
        x, w, bias, residual = operands(spec)
        layer = library[spec].bind(w, bias)
        expected = layer(x, residual)
        w += 1
        bias += 1
        np.testing.assert_array_equal(layer(x, residual), expected)


def test_an_empty_output_needs_no_kernel(library):
    x, w, bias, _ = operands(EMPTY)
    result = library[EMPTY](x, w, bias)
    assert result.shape == EMPTY.output_shape
    assert result.size == 0
    with pytest.raises(ValueError, match=r"w of .* must have shape"):
        library[EMPTY](x, w[1:], bias)


@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (2, 0, 3), (1000, 1000)])
@pytest.mark.parametrize("dtype", ["float32", "int8", np.float64])
def test_empty_aligned(shape, dtype):
    array = empty_aligned(shape, dtype)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.ctypes.data % 64 == 0
    array[...] = 1


presentations = st.sampled_from(PRESENTATIONS)
spec_of_any_kind = st.sampled_from([PACKED, RESIDUAL, PLAIN, TINY])
fuzz = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@fuzz
@given(spec_of_any_kind, st.tuples(*[presentations] * 5), st.booleans(), st.integers(0, 9))
def test_any_memory_layout_gives_the_same_result(library, spec, how, bind, seed):
    values = operands(spec, seed)
    x, w, bias, residual = (
        None if value is None else presented(value, kind)
        for value, kind in zip(values, how[:4], strict=True)
    )
    out = presented(np.full(spec.output_shape, np.nan, np.float32), how[4])
    kernel = library[spec]
    if how[4] == "read-only":
        with pytest.raises(ValueError, match=r"out of .* is read-only"):
            kernel(x, w, bias, residual, out)
        assert np.isnan(out).all()
        return
    if bind:
        result = kernel.bind(w, bias)(x, residual=residual, out=out)
    else:
        result = kernel(x, w, bias, residual, out)
    assert result is out
    assert_right(spec, out, *values)


@fuzz
@given(spec_of_any_kind, st.data())
def test_out_may_overlap_every_input(library, spec, data):
    values = operands(spec, 3)
    total = sum(value.size for value in values if value is not None)
    memory = np.zeros(total + np.prod(spec.output_shape), np.float32)
    views, begin = [], 0
    for value in values:
        view = None
        if value is not None:
            view = memory[begin : begin + value.size].reshape(value.shape)
            view[...] = value
            begin += value.size
        views.append(view)
    first = data.draw(st.integers(0, total), "first element of out")
    out = memory[first : first + np.prod(spec.output_shape)].reshape(spec.output_shape)
    x, w, bias, residual = views
    if data.draw(st.booleans(), "bind"):
        library[spec].bind(w, bias)(x, residual, out)
    else:
        library[spec](x, w, bias, residual, out)
    assert_right(spec, out, *values)


def test_the_residual_may_be_the_output(library):
    x, w, bias, residual = operands(RESIDUAL)
    expected = reference(RESIDUAL, x, w, bias, residual)
    library[RESIDUAL](x, w, bias, residual, out=residual)
    np.testing.assert_allclose(residual, expected, rtol=1e-5, atol=1e-5)


WRONG = {
    "list": (lambda a: a.tolist(), TypeError, "must be a NumPy array or a tensor with DLPack"),
    "scalar": (lambda a: 1.0, TypeError, "float was given"),
    "float64": (lambda a: a.astype(np.float64), TypeError, "dtype float64 was given"),
    "float16": (lambda a: a.astype(np.float16), TypeError, "must have dtype float32"),
    "int32": (lambda a: np.ones(a.shape, np.int32), TypeError, "dtype int32 was given"),
    "object": (lambda a: a.astype(object), TypeError, "dtype object was given"),
    "longer": (lambda a: np.concatenate([a, a], -1), ValueError, "must have shape"),
    "transposed": (lambda a: a.T if a.ndim > 1 else a[None], ValueError, "must have shape"),
    "rank": (lambda a: a[None], ValueError, "must have shape"),
    "flat": (lambda a: np.concatenate([a.ravel()] * 2), ValueError, "must have shape"),
    "empty": (lambda a: a[:0], ValueError, "must have shape"),
    "masked": (lambda a: np.ma.masked_array(a), TypeError, "masked array"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", ["x", "w", "bias", "residual", "out"])
def test_wrong_arrays_are_refused_by_name(library, name, kind):
    wrong, error, message = WRONG[kind]
    x, w, bias, residual = operands(RESIDUAL)
    out = np.full(RESIDUAL.output_shape, np.nan, np.float32)
    arguments = {"x": x, "w": w, "bias": bias, "residual": residual, "out": out}
    arguments[name] = wrong(arguments[name])
    with pytest.raises(error) as caught:
        library[RESIDUAL](**arguments)
    text = str(caught.value)
    assert text.startswith(f"{name} of {RESIDUAL.key}")
    assert message in text or (name == "out" and kind in ("list", "scalar"))
    assert np.isnan(out).all()


def test_arguments_that_are_missing_or_too_many(library):
    x, w, bias, _ = operands(RESIDUAL)
    kernel = library[RESIDUAL]
    with pytest.raises(ValueError, match="was built with bias, but none was given"):
        kernel.bind(w)
    with pytest.raises(ValueError, match="was built with residual, but none was given"):
        kernel.bind(w, bias)(x)
    x, w, _, _ = operands(TINY)
    with pytest.raises(ValueError, match="was built without bias, but one was given"):
        library[TINY].bind(w, np.zeros(8, np.float32))
    with pytest.raises(ValueError, match="was built without residual, but one was given"):
        library[TINY](x, w, residual=np.zeros(TINY.output_shape, np.float32))
