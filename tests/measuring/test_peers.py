"""Timing against other libraries: real ones where they are installed (TensorFlow always is)."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from tvmconv.checking import oracle
from tvmconv.commands import cli
from tvmconv.errors import BuildError
from tvmconv.measuring.peers import contender, library_timer, onnxruntime, race
from tvmconv.measuring.peers.contender import WrongPeerError
from tvmconv.measuring.peers.race import OURS, Raced
from tvmconv.measuring.process.worker import Worker
from tvmconv.problem import workloads
from tvmconv.problem.spec import ConvSpec

CONV = ConvSpec.conv2d((1, 9, 8, 6), (3, 3, 6, 16), strides=2)
DEPTHWISE = ConvSpec.depthwise_conv2d((1, 9, 8, 16), (3, 3, 16, 1))
EXPLICIT = ConvSpec.conv2d((1, 8, 8, 4), (3, 3, 4, 8), 2, [(0, 0), (1, 1), (1, 1), (0, 0)])
POINTWISE = ConvSpec.conv2d((1, 7, 7, 8), (1, 1, 8, 8))
INSTALLED = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            bool(library_timer.missing(name)),
            reason=f"not installed: {library_timer.missing(name)}",
        ),
    )
    for name in library_timer.LIBRARIES
]


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("spec", [CONV, DEPTHWISE, EXPLICIT, POINTWISE], ids=lambda spec: spec.key)
def test_a_librarys_values_are_the_oracles(name, spec):
    worker = Worker(
        library_timer.LibraryTimer, (name, 1, None)
    )  # a process of its own: threads are set but once
    try:
        assert worker.ask(100, "prepare", spec.key) is True
        assert 0 < worker.ask(100, "seconds", spec.key, 1.0) < 1
    finally:
        worker.close()


@pytest.mark.slow
def test_wrong_values_have_no_time(monkeypatch):
    class Wrong:
        DTYPES = ("float32",)

        @staticmethod
        def prepare(spec, data, filter, threads):
            out = oracle.conv(spec, data, filter).astype("float32")
            out[0, 0, 0, 0] += 0.01  # what bfloat16 would do
            return contender.Prepared(lambda: None, lambda: out)

    monkeypatch.setattr(library_timer, "module", lambda name: Wrong)
    monkeypatch.setattr(library_timer.os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(library_timer.os, "dup2", lambda *_: None)

    with pytest.raises(WrongPeerError, match=r"^wrong computes wrong values: 1 of .* for [-\d.]+$"):
        library_timer.LibraryTimer("wrong", 1, None).prepare(CONV.key)


def test_bytes_that_saturate_are_the_librarys_fault_and_the_reason_is_named():
    """Pairs of products are summed in 16 bits, as by pmaddubsw."""
    spec = ConvSpec.conv2d((1, 1, 1, 2), (1, 1, 2, 1), dtype="uint8")
    data, filter = np.full(spec.input_shape, 255, "uint8"), np.full(spec.filter_shape, 127, "int8")
    out = np.minimum(oracle.conv(spec, data, filter), 2**15 - 1)
    prepared = contender.Prepared(lambda: None, lambda: out, step=1.0)
    why = onnxruntime.why_wrong(spec, {"avx2"})

    with pytest.raises(WrongPeerError) as caught:
        contender.check(spec, {"data": data, "filter": filter}, prepared, "onnxruntime", why)

    message = str(caught.value)
    assert message.startswith("onnxruntime computes wrong values, since its sums of bytes saturate")
    assert "kernel" not in message
    assert onnxruntime.why_wrong(spec, {"avx2", "avx512_vnni"}) == ""
    with pytest.raises(BuildError, match="Do not use this kernel"):
        contender.check(spec, {"data": data, "filter": filter}, prepared, None)


@pytest.fixture(scope="module")
def raced(tmp_path_factory):
    """Bench two layers against TensorFlow, which the tests have; returns the figures."""
    folder = tmp_path_factory.mktemp("race")
    keys = folder / "two.txt"
    epilogue = replace(CONV, bias=True, activation="relu")
    keys.write_text(f"{epilogue.key}\n{CONV.key}\n{DEPTHWISE.key}\n")
    figures = folder / "race.json"
    command = ["bench", str(keys), "--peers", "tensorflow", "--rounds", "2", "--untuned"]
    assert cli.main([*command, "--json", str(figures), "--picture", str(folder / "race.svg")]) == 0
    return json.loads(figures.read_text()), folder


@pytest.mark.slow
def test_every_layer_has_times_of_both_in_every_round(raced):
    figures, _ = raced

    assert figures["contenders"] == [OURS, "tensorflow"]
    assert [layer["key"] for layer in figures["layers"]] == [CONV.key, DEPTHWISE.key]
    assert [layer["count"] for layer in figures["layers"]] == [2, 1]  # epilogues do not count
    for layer in figures["layers"]:
        assert layer["absent"] == {}
        for times in layer["microseconds"].values():
            assert len(times) == 2
            assert min(times) > 0
        pairs = zip(layer["microseconds"]["tensorflow"], layer["microseconds"][OURS], strict=True)
        assert layer["ratio"] == pytest.approx(np.median([a / b for a, b in pairs]))
        assert layer["best_peer"] == "tensorflow"
        assert layer["percent_of_limit"] > 0
    sums = figures["sums_ms"]
    own = sum(x["count"] * np.median(x["microseconds"][OURS]) for x in figures["layers"])
    assert sums[OURS] == pytest.approx(own / 1e3)
    assert set(figures["geometric_means"]) == {"other dense", "depthwise stride 1"}
    assert figures["versions"]["tensorflow"]["tensorflow-cpu"]


@pytest.mark.slow
def test_the_picture_names_the_layers(raced):
    _, folder = raced

    assert "<svg" in (folder / "race.svg").read_text()


def test_an_unknown_library_is_an_error_that_lists_the_known(capsys):
    assert cli.main(["bench", POINTWISE.key, "--peers", "xnpack"]) != 0

    message = capsys.readouterr().err
    assert "xnpack" in message
    assert all(name in message for name in library_timer.LIBRARIES)


def test_what_is_not_installed_is_said_with_the_command_that_installs_it(capsys, monkeypatch):
    monkeypatch.setattr(library_timer, "missing", lambda name: [f"{name}-package"])

    assert cli.main(["bench", POINTWISE.key, "--peers", "ncnn,openvino"]) != 0

    message = capsys.readouterr().err
    assert "pip install ncnn-package" in message
    assert "tvmconv[bench]" in message


def test_a_picture_without_peers_and_a_bundle_with_them_are_refused(capsys):
    assert cli.main(["bench", POINTWISE.key, "--picture", "x.png"]) != 0
    assert "--peers" in capsys.readouterr().err
    assert cli.main(["bench", POINTWISE.key, "--peers", "all", "--bundle", "x"]) != 0
    assert "--bundle" in capsys.readouterr().err


def test_a_library_that_fails_on_a_layer_has_no_time_there_and_a_reason():
    row = Raced("layer", 3, POINTWISE.key, {OURS: [2.0, 4.0], "a": [6.0, 4.0]}, {"b": "no such"})

    assert row.best_peer() == "a"
    assert row.ratio("a") == pytest.approx(2.0)  # of the rounds' 3 and 1
    assert row.median("b") == math.inf


def test_layers_are_raced_without_their_epilogues():
    layers = race.plain_layers(workloads.resolve("resnet50").entries)

    assert all(contender.plain(layer.spec) == layer.spec for layer in layers)
    assert sum(layer.count for layer in layers) == 53
    assert len({layer.spec for layer in layers}) == len(layers)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (POINTWISE, "1x1"),
        (ConvSpec.conv2d((1, 8, 8, 32), (3, 3, 32, 8)), "3x3 stride 1"),
        (ConvSpec.conv2d((1, 8, 8, 16), (3, 3, 16, 8)), "other dense"),
        (CONV, "other dense"),
        (DEPTHWISE, "depthwise stride 1"),
        (ConvSpec.depthwise_conv2d((1, 8, 8, 16), (3, 3, 16, 1), 2), "depthwise stride 2"),
    ],
)
def test_kinds(spec, kind):
    assert race.kind(spec) == kind


@pytest.mark.parametrize(
    ("spec", "padding"),
    [(CONV, "SAME"), (EXPLICIT, None), (POINTWISE, "VALID")],
)
def test_paddings_that_a_name_says(spec, padding):
    assert contender.padding_of(spec) == padding


def test_of_quantised_layers_the_sums_are_compared():
    spec = ConvSpec.conv2d((1, 4, 4, 8), (1, 1, 8, 8), dtype="int8", bias=True, quantized="int8")
    assert contender.plain(spec).key == spec.core_key
