"""Reads a model, whatever its format."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tvmconv.errors import MissingToolError, ModelError
from tvmconv.models.graph import Graph

_TFLITE_IDENTIFIER = b"TFL3"
_ONNX_START = b"\x08"  # the tag of ir_version, which writers of protobuf messages put first


def read(
    model: Any,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    example_inputs: Sequence[Any] | None = None,
) -> Graph:
    """Return the graph of a model.

    Args:
        model: path of a .tflite or .onnx file, or its bytes, whose content says which format it has; or a
            `torch.export.ExportedProgram`, or a `torch.nn.Module`.
        input_shapes: shapes of inputs, by their names, for those whose shapes the model leaves open or which
            are to be others. An open batch of a .tflite file is 1 unless it is given; .onnx files do not say
            which extent is a batch, so there each open one must be given.
        example_inputs: of a module, as `torch.export.export` takes them; their shapes are the model's.

    Raises:
        ModelError: it cannot be read, or has something that is not supported; the message lists what, where.
        MissingToolError: the package that reads this format is not installed.
    """
    if not isinstance(model, (bytes, str, os.PathLike)):
        return _read_module(model, input_shapes, example_inputs)
    if isinstance(model, bytes):
        content, name, folder = model, "model", None
    else:
        name, folder = Path(model).name, Path(model).parent
        try:
            content = Path(model).read_bytes()
        except OSError as error:
            raise ModelError(
                f"{model} cannot be read: {error.strerror}. Check the path."
            ) from error
    if content[4:8] == _TFLITE_IDENTIFIER:
        try:
            from tvmconv.models.tflite.reader import read_tflite
        except ModuleNotFoundError as error:
            raise _missing(".tflite", error) from error
        return read_tflite(content, name, input_shapes)
    if content.startswith(_ONNX_START) or name.endswith(".onnx"):
        try:
            from tvmconv.models.onnx.reader import read_onnx
        except ModuleNotFoundError as error:
            raise _missing(".onnx", error) from error
        return read_onnx(content, name, input_shapes, folder)
    raise ModelError(
        f"{name}: not a model that can be read: .tflite files have {_TFLITE_IDENTIFIER!r} at byte 4, this "
        f"one {content[4:8]!r}, and .onnx files begin with {_ONNX_START!r}. Convert it to one of these."
    )


def _read_module(
    module: Any,
    input_shapes: Mapping[str, Sequence[int]] | None,
    example_inputs: Sequence[Any] | None,
) -> Graph:
    if input_shapes:
        raise ModelError("input_shapes are of files: export the module with inputs of these shapes")
    try:
        from tvmconv.models.pytorch.reader import read_module
    except ModuleNotFoundError as error:
        raise MissingToolError(
            f"{type(module).__name__} is no path of a model, and reading modules needs PyTorch: "
            "pip install torch"
        ) from error
    return read_module(module, example_inputs)


def _missing(kind: str, error: ModuleNotFoundError) -> MissingToolError:
    return MissingToolError(
        f"Reading {kind} files needs the package {error.name}: pip install 'tvmconv[models]'"
    )
