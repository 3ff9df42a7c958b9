"""exp, tanh and erf in vectors: as near to the true values as they say, and no calls of the C library."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import s_tir, te, tirx

from tvmconv import hardware
from tvmconv.lowering.cpu import PIPELINE

_LANES = 16
_FUNCTIONS = ("@expf", "@llvm.exp", "@tanhf", "@llvm.tanh", "@erff", "@llvm.erf")
_EDGES = (math.nan, math.inf, -math.inf, 0.0, -0.0, 88.72, 88.73, -87.0, -104.0, 1e-30, 3e38, -3e38)


def _sigmoid(x: Any) -> Any:
    one = tirx.const(1, "float32")
    return one / (one + tirx.exp(-x))


def _compiled(make: Callable[[Any], Any], count: int) -> Any:
    x = te.placeholder((count,), "float32", name="x")
    y = te.compute((count,), lambda i: make(x[i]), name="y")
    schedule = s_tir.Schedule(te.create_prim_func([x, y]))
    (loop,) = schedule.get_loops(schedule.get_sblock("y"))
    schedule.vectorize(schedule.split(loop, [None, _LANES])[1])
    target = tvm.target.Target(dict(hardware.find_machine("host")[0].target))
    return tvm.compile(schedule.mod, target=target, tir_pipeline=PIPELINE)


def _values(make: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    out = tvm.runtime.empty(x.shape, "float32")
    _compiled(make, x.size)(tvm.runtime.tensor(x), out)
    return out.numpy()


def _sample(low: float, high: float) -> np.ndarray:
    x = np.linspace(low, high, 4096 * _LANES, dtype=np.float32)
    x[: len(_EDGES)] = _EDGES
    return x


CASES = [
    pytest.param(tirx.exp, np.exp, (-86.5, 88.7), (1.3e-7, 2e-38), id="exp"),
    pytest.param(tirx.tanh, np.tanh, (-12.0, 12.0), (0.0, 1.3e-7), id="tanh"),
    pytest.param(tirx.erf, np.vectorize(math.erf), (-6.0, 6.0), (0.0, 4e-7), id="erf"),
    pytest.param(
        _sigmoid, lambda x: 1 / (1 + np.exp(-x)), (-40.0, 40.0), (3e-7, 2e-38), id="sigmoid"
    ),
]


@pytest.mark.parametrize(("make", "true", "interval", "tolerance"), CASES)
def test_values(
    make: Callable[[Any], Any],
    true: Callable[[np.ndarray], np.ndarray],
    interval: tuple[float, float],
    tolerance: tuple[float, float],
) -> None:
    x = _sample(*interval)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = true(x.astype(np.float64)).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(_values(make, x), expected, *tolerance)


@pytest.mark.parametrize(("make", "true", "interval", "tolerance"), CASES)
def test_no_element_is_a_call(
    make: Callable[[Any], Any], true: Any, interval: Any, tolerance: Any
) -> None:
    text = _compiled(make, 64 * _LANES).mod.inspect_source("ll")
    assert f"<{_LANES} x float>" in text
    assert not any(name in text for name in _FUNCTIONS)


def test_one_that_holds_another() -> None:
    x = np.linspace(-3, 3, 64, dtype=np.float32)
    made = _values(lambda v: tirx.exp(tirx.tanh(tirx.exp(v))), x)
    np.testing.assert_allclose(made, np.exp(np.tanh(np.exp(x.astype(np.float64)))), 4e-7)


def test_float16_takes_the_way_of_float32() -> None:
    x = te.placeholder((64,), "float16", name="x")
    y = te.compute((64,), lambda i: tirx.exp(x[i]), name="y")
    schedule = s_tir.Schedule(te.create_prim_func([x, y]))
    (loop,) = schedule.get_loops(schedule.get_sblock("y"))
    schedule.vectorize(schedule.split(loop, [None, _LANES])[1])
    target = tvm.target.Target(dict(hardware.find_machine("x86-64-v3")[0].target))
    run = tvm.compile(schedule.mod, target=target, tir_pipeline=PIPELINE)
    text = run.mod.inspect_source("ll")
    assert not any(name in text for name in _FUNCTIONS)
    values, out = np.linspace(-9, 11, 64).astype(np.float16), tvm.runtime.empty((64,), "float16")
    run(tvm.runtime.tensor(values), out)
    np.testing.assert_allclose(out.numpy(), np.exp(values.astype(np.float32)), 2**-11)


def test_other_dtypes_keep_their_function() -> None:
    x = te.placeholder((4,), "float64", name="x")
    y = te.compute((4,), lambda i: tirx.exp(x[i]), name="y")
    target = tvm.target.Target(dict(hardware.find_machine("host")[0].target))
    run = tvm.compile(te.create_prim_func([x, y]), target=target, tir_pipeline=PIPELINE)
    values, out = np.linspace(-700, 700, 4), tvm.runtime.empty((4,), "float64")
    run(tvm.runtime.tensor(values), out)
    np.testing.assert_allclose(out.numpy(), np.exp(values), 1e-14)
