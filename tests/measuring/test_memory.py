"""Who lies where in an arena, and until when."""

import numpy as np
import pytest
from model_files import FACES, model_files

import tvmconv
from tvmconv.bundle import manifest
from tvmconv.bundle.model_entries import ArgumentEntry, LayerEntry
from tvmconv.measuring.bench import memory
from tvmconv.models.graph import Builder


def call(symbol, result, *inputs):
    """Each argument is (memory, begin, floats)."""
    arguments = [
        ArgumentEntry((size,), "float32", name, begin) for name, begin, size in (*inputs, result)
    ]
    return LayerEntry(symbol, (symbol,), arguments[-1].shape, None, tuple(arguments))


def lives(*layers):
    return [(s.symbol, s.first, s.last, s.begin, s.end) for s in memory.spans(layers)]


def test_a_value_lives_from_its_maker_to_its_last_reader():
    a, b, c = ("arena", 0, 4), ("arena", 64, 4), ("arena", 128, 4)

    found = lives(
        call("first", a, ("input0", 0, 4)),
        call("second", b, a),
        call("third", c, b),
        call("fourth", ("output0", 0, 4), a, c),
    )

    assert found == [("first", 0, 3, 0, 16), ("second", 1, 2, 64, 80), ("third", 2, 3, 128, 144)]


def test_a_value_ends_where_another_is_written_over_it():
    a = ("arena", 0, 4)

    found = lives(
        call("first", a, ("input0", 0, 4)),
        call("in_place", a, a),
        call("last", ("output0", 0, 4), a),
    )

    assert found == [("first", 0, 1, 0, 16), ("in_place", 1, 2, 0, 16)]


def test_parts_of_a_value_are_needed_until_the_whole_is_read():
    whole = ("arena", 0, 8)

    found = lives(
        call("left", ("arena", 0, 4), ("input0", 0, 4)),
        call("right", ("arena", 16, 4), ("input0", 0, 4)),
        call("last", ("output0", 0, 8), whole),
    )

    assert found == [("left", 0, 2, 0, 16), ("right", 1, 2, 16, 32)]
    assert memory.most_bytes(memory.spans([])) == 0


def chain():
    b = Builder("chain")
    x = b.input("x", (1, 8, 8, 4), "float32")
    w = b.constant("w", np.ones((3, 3, 4, 4), np.float32))
    fixed = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "activation": None}
    first = b.node("conv2d", [x, w], **fixed)
    second = b.node("conv2d", [first, w], **fixed)
    b.output("y", b.node("conv2d", [second, w, "", first], **fixed))
    return b.graph()


def face():
    return model_files(FACES)["face_detection_short_range"]


@pytest.mark.parametrize("model", [chain, pytest.param(face, marks=pytest.mark.slow)])
def test_the_planner_s_own_lifetimes_are_found_again(model, tmp_path):
    path = tvmconv.compile(model(), output=tmp_path / "m.tvmconv")
    (variant,) = manifest.read_manifest(path).variants

    found = memory.spans(variant.program.layers)

    assert sum(span.end - span.begin for span in found) == variant.program.values_bytes
    assert memory.most_bytes(found) <= variant.program.arena_bytes
    for at, one in enumerate(found):
        for other in found[at + 1 :]:
            both = one.first <= other.last and other.first <= one.last
            assert not (both and one.overlaps(other.begin, other.end))
