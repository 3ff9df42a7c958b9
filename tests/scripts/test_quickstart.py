"""What the quickstart and the race of models are made of; the whole of it in one slow test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from model_files import FACES, model_files

import tvmconv
from tvmconv.errors import TvmconvError

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def scripts(monkeypatch):
    """The scripts' modules, importable as they are for each other."""
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A small model, compiled."""
    file = model_files(FACES)["iris_landmark"]
    return file, tvmconv.compile(file, output=tmp_path_factory.mktemp("made") / "iris.tvmconv")


def test_differences_are_in_parts_of_each_output_s_largest_value(scripts):
    from race_models import largest_difference

    wanted = [np.array([1.0, -10]), np.array([100.0])]

    assert largest_difference(wanted, wanted) == 0
    assert largest_difference([np.array([1.0, -9]), np.array([101.0])], wanted) == 0.1
    assert largest_difference([np.array([[1.0, -10]]), wanted[1]], wanted) == float("inf")


def test_who_a_model_runs_against_is_by_its_file(scripts, tmp_path):
    from race_models import require

    pytest.importorskip("ai_edge_litert.interpreter")
    assert require(tmp_path / "model.tflite") == "LiteRT"
    with pytest.raises(TvmconvError, match=r"model\.h5 is no file of \.tflite or \.onnx"):
        require(tmp_path / "model.h5")


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPTS / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


def test_models_that_are_not_there_are_an_error_of_one_line(tmp_path):
    done = run("quickstart.py", "--models", tmp_path, "--output", tmp_path / "out")

    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "scripts/quickstart" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_heaviest_convolutions_are_those_of_most_operations(scripts, compiled):
    import quickstart

    _, path = compiled
    layers = tvmconv.load(path).variant.program.layers
    keys = [layer.key for layer in layers if layer.key]
    everything = {key: keys.count(key) * tvmconv.ConvSpec.from_key(key).flops for key in keys}

    heaviest = quickstart.heaviest(path, 3)

    assert len(set(heaviest)) == 3
    assert all(heaviest.count(key) == keys.count(key) for key in heaviest)
    rest = [flops for key, flops in everything.items() if key not in heaviest]
    assert min(everything[key] for key in heaviest) >= max(rest)


@pytest.mark.slow
def test_a_race_compares_values_and_times_both_in_each_round(scripts, compiled):
    pytest.importorskip("ai_edge_litert.interpreter")
    import race_models

    result = race_models.race(*compiled, threads=1, rounds=2)

    assert result.difference <= race_models.CLOSE
    assert {name: len(each) for name, each in result.seconds.items()} == {"tvmconv": 2, "LiteRT": 2}
    assert 1e-5 < min(result.seconds["tvmconv"]) < 1
    assert result.ratio > 0


@pytest.mark.slow
def test_onnx_files_run_against_onnxruntime(scripts, tmp_path):
    pytest.importorskip("onnxruntime")
    onnx_models = pytest.importorskip("onnx_models")
    import race_models

    file = tmp_path / "squeezenet.onnx"
    file.write_bytes(onnx_models.light("squeezenet"))
    path = tvmconv.compile(file, output=tmp_path / "squeezenet.tvmconv")

    result = race_models.race(file, path, threads=1, rounds=1)

    assert result.peer == "ONNX Runtime"
    assert result.difference <= race_models.CLOSE


@pytest.mark.slow
def test_a_race_of_two_different_models_is_no_race(scripts, compiled):
    pytest.importorskip("ai_edge_litert.interpreter")
    import race_models

    other = model_files(FACES)["face_landmark"]

    with pytest.raises(TvmconvError, match=r"face_landmark\.tflite: outputs differ"):
        race_models.race(other, compiled[1], threads=1, rounds=1)


@pytest.mark.slow
def test_the_quickstart_goes_through(tmp_path):
    pytest.importorskip("skimage")
    pytest.importorskip("ai_edge_litert.interpreter")
    models = next(iter(model_files(FACES).values())).parent

    done = run("quickstart.py", "--models", models, "--output", tmp_path, "--minutes", 0)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sure to") == 2
    pictures = sorted(file.name for file in tmp_path.glob("*.png"))
    assert pictures == ["face_detection_back.png", "face_detection_full_range_sparse.png"]
