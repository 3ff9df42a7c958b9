"""Models where a verb takes either a model or a workload."""

from __future__ import annotations

import argparse
from pathlib import Path

from tvmconv.problem import workloads
from tvmconv.problem.workloads import Workload

Shapes = dict[str, tuple[int, ...]]

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


def workload(text: str, shapes: Shapes | None = None) -> Workload:
    """Return the workload that ``text`` names, or the convolutions of the model in that file."""
    if not is_file(text):
        if shapes:
            raise ValueError(f"--input-shape is for a model, and {text} is none")
        return workloads.resolve(text)
    from tvmconv.models.workload import workload as of_model

    return of_model(check_file(text), shapes)


def add_input_shape(parser: argparse.ArgumentParser) -> None:
    """``--input-shape``: of a model's inputs."""
    parser.add_argument(
        "--input-shape",
        action="append",
        default=[],
        type=_input_shape,
        metavar="NAME=1,H,W,C",
        help="shape of an input that the model leaves open, or that is to be another; may be repeated",
    )


def input_shapes(args: argparse.Namespace) -> Shapes | None:
    """Return the shapes by the names of the inputs, None where none is given."""
    return dict(args.input_shape) or None


def _input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, shape = text.rpartition("=")
    extents = shape.split(",")
    if not name or not all(extent.isdigit() and int(extent) > 0 for extent in extents):
        raise argparse.ArgumentTypeError(f"{text} is not NAME=1,640,640,3")
    return name, tuple(map(int, extents))
