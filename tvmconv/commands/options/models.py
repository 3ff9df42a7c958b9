"""Models where a verb takes either a model or a workload."""

from __future__ import annotations

from pathlib import Path

from tvmconv.problem import workloads
from tvmconv.problem.workloads import Workload

SUFFIXES = (".tflite", ".onnx")
MODEL_OR_WORKLOAD = (
    "a .tflite or .onnx file, or a workload: a known name (mobilenet_v2, resnet50, ...), a spec key, or a "
    "file of keys, one a line"
)


def is_file(text: str) -> bool:
    """Whether ``text`` names a model's file, there or not: no workload ends like one."""
    return Path(text).suffix.lower() in SUFFIXES


def check_file(text: str) -> Path:
    """Return the path of a model's file; ValueError where there is none."""
    path = Path(text)
    if path.is_dir():
        raise ValueError(f"{text} is a directory, not a {' or '.join(SUFFIXES)} file")
    if not path.is_file():
        raise ValueError(f"{text} does not exist. Check the path.")
    return path


def workload(text: str) -> Workload:
    """Return the workload that ``text`` names, or the convolutions of the model in that file."""
    if not is_file(text):
        return workloads.resolve(text)
    from tvmconv.models.workload import workload as of_model

    return of_model(check_file(text))
