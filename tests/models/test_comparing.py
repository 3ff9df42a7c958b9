"""How far the values of a model are from those of another."""

import numpy as np
import pytest

from tvmconv.bundle.model_entries import TensorEntry
from tvmconv.models import comparing


def test_floats_may_be_off_by_a_part_of_the_largest_value():
    expected = np.array([0.0, -100.0])

    near = comparing.difference("y", np.float32([0.05, -100]), expected)
    far = comparing.difference("y", np.float32([0.2, -100]), expected)

    assert (near.passes, far.passes) == (True, False)
    assert far.relative == pytest.approx(2e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_must_be_so_in_both(value):
    both = np.float32([1, value])

    assert comparing.difference("y", both, both).passes
    assert not comparing.difference("y", both, np.float32([1, 2])).passes
    assert not comparing.difference("y", np.float32([1, 2]), both).passes


def test_integers_must_be_equal_and_shapes_too():
    numbers = np.array([1000000, 3])

    assert comparing.difference("y", numbers, numbers).passes
    assert not comparing.difference("y", numbers, numbers + 1).passes
    assert not comparing.difference("y", numbers, numbers[:1]).passes


def test_inputs_of_files_are_taken_and_the_others_are_random(tmp_path):
    entries = [
        TensorEntry("x", (2, 3), "float32"),
        TensorEntry("bytes", (64,), "uint8"),
        TensorEntry("index", (64,), "int32"),
    ]
    given = np.ones((2, 3), np.float32)
    np.save(tmp_path / "x.npy", given)
    made = comparing.given_inputs(entries, {"x": str(tmp_path / "x.npy")}, seed=1)

    assert np.array_equal(made["x"], given)
    assert (made["bytes"].dtype, made["index"].dtype) == (np.uint8, np.int32)
    assert made["bytes"].max() > 128 > made["index"].max()
    again = comparing.random_inputs(entries, seed=1)
    assert np.array_equal(made["bytes"], again["bytes"])

    np.save(tmp_path / "x.npy", given[:1])
    with pytest.raises(ValueError, match=r"has \(1, 3\) float32, the model takes \(2, 3\)"):
        comparing.given_inputs(entries, {"x": str(tmp_path / "x.npy")}, seed=1)
    with pytest.raises(ValueError, match="the model's inputs are x, bytes, index"):
        comparing.given_inputs(entries, {"y": str(tmp_path / "x.npy")}, seed=1)


@pytest.mark.parametrize(
    ("dtype", "off", "passes"),
    [("int8", 1, True), ("uint8", 1, True), ("int8", 2, False), ("int32", 1, False)],
)
def test_bytes_may_be_off_by_one(dtype, off, passes):
    expected = np.array([3, 100, 0], dtype)
    made = expected + np.array([0, off, 0], dtype)
    assert comparing.difference("out", made, expected).passes == passes
