"""``tvmconv bench`` of a whole model."""

import dataclasses
import json

import numpy as np
import pytest
from model_files import FACES, model_files

import tvmconv
from tvmconv.commands.models import bench
from tvmconv.measuring.peers import models
from tvmconv.models.folding.fold import fold
from tvmconv.models.graph import Builder
from tvmconv.models.reading import read

pytestmark = pytest.mark.usefixtures("user_records")
pytest_plugins = ("bundle_fixtures",)


def small():
    b = Builder("small")
    x = b.input("x", (1, 5, 4, 3), "float32")
    b.output("y", b.node("tanh", [x]))
    b.output("z", b.node("exp", [x]))
    return b.graph()


def test_a_compiled_model_is_timed_alone(invoke, tmp_path):
    path = tvmconv.compile(small(), output=tmp_path / "m.tvmconv")

    code, out, _ = invoke("bench", path, "--rounds", 2, "--json", "-")

    found = json.loads(out)
    assert code == 0
    assert len(found["seconds"]["tvmconv"]) == 2
    assert 0 < found["median_seconds"]["tvmconv"] < 1
    assert invoke("bench", path, "--rounds", 1)[1].splitlines()[2].startswith("tvmconv")


MISTAKES = {
    "missing": (["nowhere.tflite"], "nowhere.tflite does not exist"),
    "folder": (["folder.onnx", "--peers", "all"], "--peers opens the model's own file"),
    "peer": (["m.tflite", "--peers", "ncnn"], ".tflite files are opened by litert, or all"),
    "cold": (["m.tflite", "--cache", "cold"], "are for layers, not for a whole model"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_say_what_is_allowed(invoke, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "m.tflite").write_bytes(b"")
    arguments, message = MISTAKES[case]

    code, _, err = invoke("bench", *arguments)

    assert (code, message in err) == (2, True), err


def test_kernels_are_no_model(invoke, built):
    code, _, err = invoke("bench", built)

    assert code == 2
    assert "holds kernels, no model" in err


@pytest.fixture(scope="module")
def file():
    pytest.importorskip("ai_edge_litert")
    return model_files(FACES)["face_detection_short_range"]


@pytest.mark.slow
def test_a_real_model_is_raced_with_its_runtime(invoke, file):
    code, out, _ = invoke("bench", file, "--peers", "all", "--rounds", 2, "--json", "-")

    found = json.loads(out)
    assert code == 0
    assert set(found["seconds"]) == {"tvmconv", "litert"}
    assert found["errors"]["litert"] < 1e-5
    theirs, mine = (found["seconds"][name] for name in ("litert", "tvmconv"))
    assert found["ratios"]["litert"] == pytest.approx(np.median(np.divide(theirs, mine)))


@pytest.mark.slow
def test_a_runtime_with_other_values_has_no_time(file, tmp_path, capsys):
    graph = fold(read(file))
    last = next(name for name in reversed(graph.constants) if graph.constants[name].ndim == 4)
    changed = {**graph.constants, last: graph.constants[last] * np.float32(1.01)}
    other = dataclasses.replace(graph, constants=changed)
    path = tvmconv.compile(other, output=tmp_path / "m.tvmconv")

    raced = models.race(path, file, ["litert"], 1, 1, lambda *_: None)
    bench.show(raced)

    assert set(raced.seconds) == {"tvmconv"}
    assert "litert has no time: its outputs are not ours" in capsys.readouterr().out
