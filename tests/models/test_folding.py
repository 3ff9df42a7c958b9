"""Folding leaves values as they are, and removes the nodes it is for; random small graphs in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmconv.models.folding.activations import name_activations
from tvmconv.models.folding.affine import fold_arithmetic
from tvmconv.models.folding.epilogues import fold_epilogues
from tvmconv.models.folding.fold import fold
from tvmconv.models.folding.means import pools_to_means
from tvmconv.models.folding.padding import fold_padding
from tvmconv.models.folding.simplify import drop_identities, share_equal_nodes
from tvmconv.models.graph import ABSENT, Builder, Graph
from tvmconv.models.reference import evaluate

CHANNELS = 4
PLAIN = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "activation": None}
NO_PADS = {**PLAIN, "pads": (0, 0, 0, 0)}


class Model:
    """A graph of images of 5x6x4 in float64, written in few words."""

    def __init__(self, seed: int = 0) -> None:
        self.builder = Builder("test")
        self.rng = np.random.default_rng(seed)
        self.data = self.builder.input("x", (1, 5, 6, CHANNELS), "float64")

    def random(self, *shape: int) -> str:
        return self.number(self.rng.uniform(0.5, 1.5, shape) * self.rng.choice((-1, 1), shape))

    def number(self, value) -> str:
        return self.builder.constant("", np.asarray(value, "float64"))

    def conv(
        self, data: str, bias: bool = True, out: int = CHANNELS, size: int = 3, **changes
    ) -> str:
        inputs = [data, self.random(size, size, CHANNELS, out)]
        inputs += [self.random(out)] if bias else []
        return self.builder.node("conv2d", inputs, **{**PLAIN, **changes})

    def depthwise(self, data: str, **changes) -> str:
        inputs = [data, self.random(3, 3, CHANNELS, 1), self.random(CHANNELS)]
        return self.builder.node("depthwise_conv2d", inputs, **{**PLAIN, **changes})

    def node(self, op: str, *inputs: str, **attributes) -> str:
        return self.builder.node(op, inputs, **attributes)

    def graph(self, *outputs: str) -> Graph:
        for output in outputs:
            self.builder.output(output, output)
        return self.builder.graph()


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def assert_equal(before: Graph, after: Graph) -> None:
    rng = np.random.default_rng(7)
    inputs = {name: rng.uniform(-4, 8, each.shape) for name, each in before.inputs.items()}
    expected, got = evaluate(before, inputs), evaluate(after, inputs)
    assert list(expected) == list(got)
    for name, wanted in expected.items():
        np.testing.assert_allclose(got[name], wanted, rtol=1e-9, atol=1e-9)
    known = {*after.inputs, *after.constants}
    for node in after.nodes:
        assert known.issuperset(node.present)
        known.add(node.name)


ARITHMETIC = st.sampled_from(["add", "subtract", "multiply", "divide"])


@given(
    op=ARITHMETIC,
    kind=st.sampled_from(["conv", "depthwise", "dense", "transposed"]),
    bias=st.booleans(),
    first=st.booleans(),
    scalar=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_arithmetic_behind_goes_into_filter_and_bias(op, kind, bias, first, scalar, seed):
    model = Model(seed)
    if kind == "conv":
        made = model.conv(model.data, bias)
    elif kind == "depthwise":
        made = model.depthwise(model.data)
    elif kind == "dense":
        made = model.node("dense", model.data, model.random(4, 4), activation=None)
    else:
        made = model.node(
            "conv2d_transpose", model.data, model.random(2, 2, 4, 4),
            strides=(2, 2), pads=(0, 0, 0, 0), size=(11, 12), activation=None,
        )  # fmt: skip
    other = model.random() if scalar else model.random(CHANNELS)
    before = model.graph(model.node(op, *((made, other) if first else (other, made))))
    after = fold_arithmetic(before)

    assert_equal(before, after)
    assert len(after.nodes) == (2 if op == "divide" and not first else 1)


@given(
    op=ARITHMETIC,
    kind=st.sampled_from(["conv", "groups", "depthwise", "dense"]),
    padded=st.booleans(),
    first=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_arithmetic_in_front_goes_in_where_no_padding_interferes(op, kind, padded, first, seed):
    model = Model(seed)
    other = model.random(1, 1, 1, CHANNELS)
    data = model.node(op, *((model.data, other) if first else (other, model.data)))
    attributes = PLAIN if padded else NO_PADS
    if kind == "conv":
        made = model.conv(data, **attributes)
    elif kind == "groups":
        made = model.node("conv2d", data, model.random(3, 3, 2, 6), **attributes)
    elif kind == "depthwise":
        made = model.depthwise(data, **attributes)
    else:
        made = model.node("dense", data, model.random(4, 3), activation=None)
    before = model.graph(made)
    after = fold_arithmetic(before)

    assert_equal(before, after)
    stays = op in ("add", "subtract") and padded and kind != "dense"
    stays |= op == "divide" and not first
    assert len(after.nodes) == 1 + stays


def test_arithmetic_stays_where_the_convolution_has_other_readers_or_an_activation():
    model = Model()
    shared, active = model.conv(model.data), model.conv(model.data, activation="relu")
    sums = [model.node("add", each, model.random(4)) for each in (shared, active)]
    before = model.graph(*sums, shared)

    assert ops(fold_arithmetic(before)) == ops(before)


PADS = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2)


@given(pads=PADS, own=st.booleans(), kind=st.sampled_from(["conv", "depthwise", "pool"]))
@settings(max_examples=40, deadline=None)
def test_padding_of_images_goes_into_what_is_behind(pads, own, kind):
    model = Model()
    data = model.node("pad", model.data, pads=((0, 0), *pads, (0, 0)), value=0.0, mode="constant")
    attributes = PLAIN if own else NO_PADS
    if kind == "pool":
        made = model.node(
            "average_pool2d", data, window=(3, 3), strides=(2, 1), pads=attributes["pads"],
            count_padding=False,
        )  # fmt: skip
    else:
        made = (model.conv if kind == "conv" else model.depthwise)(data, **attributes)
    before = model.graph(made)
    after = fold_padding(before)

    assert_equal(before, after)
    assert len(after.nodes) == 1 + (kind == "pool" and own)


@pytest.mark.parametrize(
    "changes",
    [
        {"value": 1.0},
        {"mode": "reflect"},
        {"pads": ((0, 0), (1, 1), (1, 1), (0, 1))},
    ],
)
def test_other_padding_stays(changes):
    model = Model()
    attributes = {"pads": ((0, 0), (1, 1), (1, 1), (0, 0)), "value": 0.0, "mode": "constant"}
    data = model.node("pad", model.data, **{**attributes, **changes})
    depth = model.builder.tensor(data).shape[3]
    before = model.graph(model.node("conv2d", data, model.random(3, 3, depth, 2), **NO_PADS))

    assert ops(fold_padding(before)) == ["pad", "conv2d"]


def spelled(model: Model, name: str, swap: bool) -> str:
    """An activation of the input in several nodes."""

    def node(op, *inputs):
        return model.node(op, *(inputs[::-1] if swap else inputs))

    x = model.data
    gate = model.node("relu6", node("add", x, model.number(3)))
    return {
        "relu": lambda: node("maximum", x, model.number(0)),
        "relu6": lambda: node("minimum", node("maximum", x, model.number(0)), model.number(6)),
        "silu": lambda: node("multiply", x, model.node("sigmoid", x)),
        "hard_sigmoid": lambda: node("multiply", gate, model.number(np.float32(1 / 6))),
        "hard_swish": lambda: node("multiply", node("multiply", x, gate), model.number(1 / 6)),
    }[name]()


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("name", ["relu", "relu6", "silu", "hard_sigmoid", "hard_swish"])
def test_activations_get_their_names(name, swap):
    model = Model()
    before = model.graph(spelled(model, name, swap))
    after = name_activations(before)

    assert ops(after) == [name]
    inputs = {"x": np.random.default_rng(0).uniform(-4, 8, (1, 5, 6, CHANNELS))}
    expected, got = (next(iter(evaluate(each, inputs).values())) for each in (before, after))
    np.testing.assert_allclose(got, expected, rtol=1e-6)  # 1/6 in float32 is what models have


def test_near_activations_keep_their_own():
    model = Model()
    plus4 = model.node("relu6", model.node("add", model.data, model.number(4)))
    other = model.node("sigmoid", model.node("negative", model.data))
    before = model.graph(
        model.node("multiply", plus4, model.number(1 / 6)),
        model.node("multiply", model.data, other),
        model.node("clip", model.data, low=0.0, high=5.0),
        model.node("minimum", model.data, model.number(6)),
        model.node("divide", model.number(6), model.data),
    )

    assert ops(name_activations(before)) == ops(before)


@given(
    kinds=st.lists(
        st.sampled_from(["conv", "depthwise", "relu", "add", "prelu", "output"]),
        min_size=3,
        max_size=9,
    ),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_epilogues_of_random_graphs_keep_their_values(kinds, seed):
    model = Model(seed)
    values, outputs = [model.data], set()
    for kind in kinds:
        value, other = model.rng.choice(values[-3:], 2)
        if kind == "output":
            outputs.add(str(value))
            continue
        if kind == "conv":
            value = model.conv(str(value), bool(model.rng.integers(2)))
        elif kind == "depthwise":
            value = model.depthwise(str(value))
        elif kind == "relu":
            value = model.node("relu", str(value))
        elif kind == "add":
            value = model.node("add", str(value), str(other))
        else:
            value = model.node("prelu", str(value), model.random(1, 1, CHANNELS))
        values.append(value)
    before = model.graph(*sorted((outputs | {values[-1]}) - {model.data}))

    for after in (fold_epilogues(before), fold(before)):
        assert_equal(before, after)
        assert len(after.nodes) <= len(before.nodes)


def test_the_later_of_two_convolutions_takes_the_sum_and_its_activation():
    model = Model()
    first, second = model.conv(model.data), model.depthwise(model.data)
    before = model.graph(model.node("relu", model.node("add", second, first)))
    after = fold_epilogues(before)

    assert_equal(before, after)
    assert ops(after) == ["conv2d", "depthwise_conv2d"]
    assert after.nodes[1].inputs[3] == after.nodes[0].name
    assert after.nodes[1].attributes["activation"] == "relu"
    assert after.nodes[0].attributes["activation"] is None


def test_prelu_and_padded_residuals_go_in():
    model = Model()
    wide = model.conv(model.data, bias=False, out=6)
    skip = model.node(
        "pad", model.data, pads=((0, 0), (0, 0), (0, 0), (0, 2)), value=0.0, mode="constant"
    )
    before = model.graph(model.node("prelu", model.node("add", wide, skip), model.random(6)))
    full = fold(before)

    assert ops(full) == ["conv2d"]
    assert full.nodes[0].inputs[0] == full.nodes[0].inputs[3] == "x"
    assert full.nodes[0].inputs[2] == ABSENT
    assert_equal(before, full)


def test_pools_over_the_whole_image_and_reshaped_means_are_means():
    model = Model()
    pool = model.node(
        "average_pool2d", model.data, window=(5, 6), strides=(1, 1), pads=(0, 0, 0, 0),
        count_padding=False,
    )  # fmt: skip
    mean = model.node("mean", model.data, axes=(1, 2), keepdims=False)
    before = model.graph(pool, model.node("reshape", mean, shape=(1, 1, 1, CHANNELS)))
    after = pools_to_means(before)

    assert_equal(before, after)
    assert [node.attributes for node in after.nodes] == [{"axes": (1, 2), "keepdims": True}] * 2


def test_what_does_nothing_goes_and_outputs_stay_nodes():
    model = Model()
    x = model.node("relu", model.data)
    y = model.node("transpose", x, permutation=(0, 2, 1, 3))
    y = model.node("transpose", y, permutation=(0, 2, 1, 3))
    y = model.node("reshape", model.node("reshape", y, shape=(30, 4)), shape=(1, 5, 6, 4))
    y = model.node("multiply", model.node("add", y, model.number(0)), model.number(1))
    y = model.node("pad", y, pads=((0, 0),) * 4, value=0.0, mode="constant")
    whole = model.node("slice", y, begin=(0,) * 4, end=(1, 5, 6, 4), strides=(1,) * 4)
    before = model.graph(
        model.node("tanh", whole), model.node("reshape", model.data, shape=(1, 5, 6, 4))
    )
    after = drop_identities(before)

    assert_equal(before, after)
    assert sorted(ops(after)) == ["relu", "reshape", "tanh"]


def test_a_transpose_that_moves_only_ones_is_a_reshape():
    model = Model()
    pooled = model.node("mean", model.data, axes=(1, 2), keepdims=True)
    before = model.graph(model.node("transpose", pooled, permutation=(0, 3, 1, 2)))

    assert ops(drop_identities(before)) == ["mean", "reshape"]
    assert_equal(before, drop_identities(before))


def test_reversed_and_subtracted_from_is_no_identity():
    model = Model()
    back = model.node(
        "slice", model.data, begin=(0, 4, 0, 0), end=(1, -1, 6, 4), strides=(1, -1, 1, 1)
    )
    before = model.graph(back, model.node("subtract", model.number(0), model.data))

    assert ops(drop_identities(before)) == ["slice", "subtract"]


def test_equal_nodes_are_shared():
    model = Model()
    both = [model.node("clip", model.data, low=-1.0, high=high) for high in (1.0, 1.0, 2.0)]
    total = model.node("add", model.node("add", both[0], both[1]), both[2])
    before = model.graph(total)
    after = share_equal_nodes(before)

    assert_equal(before, after)
    assert ops(after).count("clip") == 2


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic"])
def test_a_convolution_of_one_pixel_goes_in_front_of_an_enlargement(method):
    model = Model()
    size = {"size": (10, 18), "method": method, "coordinates": "half_pixel", "rounding": "floor"}
    data = model.node("pad", model.data, pads=((0, 0),) * 3 + ((0, 4),), value=1.0, mode="constant")
    large = model.node("resize", data, **size)
    window, bias = model.random(1, 1, 8, 6), model.random(6)
    made = model.node(
        "conv2d",
        large,
        window,
        bias,
        strides=(1, 1),
        pads=(0,) * 4,
        dilations=(1, 1),
        activation=None,
    )
    before = model.graph(model.node("relu", made))
    after = fold(before)

    assert_equal(before, after)
    assert ops(after) == ["pad", "conv2d", "resize", "relu"]
    assert after.nodes[1].tensor.shape == (1, 5, 6, 6)


def test_what_reads_other_pixels_or_is_resized_for_others_too_stays_behind_it():
    size = {"size": (10, 18), "method": "bilinear", "coordinates": "half_pixel", "rounding": ""}
    one = {"strides": (1, 1), "pads": (0,) * 4, "dilations": (1, 1), "activation": None}
    for wide, options, twice in ((3, PLAIN, False), (1, one, True)):
        model = Model()
        data = model.node(
            "pad", model.data, pads=((0, 0),) * 3 + ((0, 4),), value=1.0, mode="constant"
        )
        large = model.node("resize", data, **size)
        made = model.node("conv2d", large, model.random(wide, wide, 8, 6), **options)
        before = model.graph(made, *([large] if twice else []))

        assert ops(fold(before)) == ["pad", "resize", "conv2d"]


@pytest.mark.parametrize(("dilation", "size"), [(6, 1), (5, 1), (4, 3), (50, 1)])
def test_taps_that_see_only_padding_go(dilation, size):
    model = Model()
    around = {"pads": (dilation,) * 4, "dilations": (dilation, dilation)}
    y = model.depthwise(model.conv(model.data, **around), **around)
    graph = model.graph(y)

    folded = fold(graph)

    for node in folded.nodes:
        rows, columns, *_ = folded.constants[node.inputs[1]].shape
        assert (rows, columns) == (min(size, 3), 1 if dilation > 5 else 3)
    assert_equal(graph, folded)
