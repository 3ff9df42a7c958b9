"""Elements in another order: which axes are left of a node, and values of each way to move them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tvmconv
from tvmconv.models import reference
from tvmconv.models.graph import Builder, Node, Tensor
from tvmconv.models.rest import turning


def transposed(shape, order):
    return Node("y", "transpose", ("x",), Tensor(shape, "float32"), {"permutation": order})


@given(st.permutations(range(5)), st.lists(st.integers(1, 3), min_size=5, max_size=5))
def test_fewer_axes_are_the_same_order_of_elements(order, shape):
    x = np.arange(math.prod(shape)).reshape(shape)
    merged, turned = turning.axes(transposed(tuple(shape), tuple(order)), tuple(shape))

    assert len(merged) <= len([each for each in shape if each > 1]) or merged == (1,)
    assert (x.reshape(merged).transpose(turned).ravel() == x.transpose(order).ravel()).all()


@pytest.mark.parametrize(
    ("shape", "order", "expected"),
    [
        ((1, 3, 8, 8), (0, 2, 3, 1), ((3, 64), (1, 0))),
        ((2, 8, 8, 3), (0, 1, 2, 3), ((384,), (0,))),
        ((1, 7, 1, 5), (3, 2, 0, 1), ((7, 5), (1, 0))),
    ],
)
def test_axes_that_stay_together_are_one(shape, order, expected):
    assert turning.axes(transposed(shape, order), shape) == expected


def test_blocks_of_pixels_and_images_turned_have_their_values(tmp_path):
    b = Builder("turning")
    shapes = {"image": (1, 6, 5, 36), "channels": (1, 40, 6, 7), "wide": (2, 8, 6, 3)}
    inputs = {name: b.input(name, shape, "float32") for name, shape in shapes.items()}
    for name, value in inputs.items():
        b.output(f"{name} last", b.node("transpose", [value], permutation=(0, 2, 3, 1)))
        b.output(f"{name} first", b.node("transpose", [value], permutation=(0, 3, 1, 2)))
        b.output(f"{name} back", b.node("transpose", [value], permutation=(3, 2, 1, 0)))
    for block in (2, 3, 6):
        b.output(f"space {block}", b.node("depth_to_space", [inputs["image"]], block=block))
    b.output("depth", b.node("space_to_depth", [inputs["wide"]], block=2))
    graph = b.graph()
    model = tvmconv.load(tvmconv.compile(graph, output=tmp_path / "m.tvmconv"), threads=2)
    arrays = {
        name: np.arange(math.prod(shape), dtype="float32").reshape(shape)
        for name, shape in shapes.items()
    }

    for made, (name, right) in zip(
        model(**arrays), reference.evaluate(graph, arrays).items(), strict=True
    ):
        np.testing.assert_array_equal(made, right, name)
