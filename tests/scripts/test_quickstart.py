"""The quickstart: what it needs is said first; the whole of it in one slow test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from model_files import FACES, model_files

SCRIPTS = Path(__file__).parents[2] / "scripts"


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
def test_the_quickstart_goes_through(tmp_path):
    pytest.importorskip("skimage")
    pytest.importorskip("ai_edge_litert.interpreter")
    models = next(iter(model_files(FACES).values())).parent

    done = run("quickstart.py", "--models", models, "--output", tmp_path, "--minutes", 0)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sure to") == 2
    assert done.stdout.count("outputs are those of litert") == 2
    assert done.stdout.count("\nlitert ") == 2  # a row of each race
    pictures = sorted(file.name for file in tmp_path.glob("*.png"))
    assert pictures == ["face_detection_back.png", "face_detection_full_range_sparse.png"]
