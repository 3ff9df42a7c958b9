"""Reads a model from a file, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tvmconv.errors import MissingToolError, ModelError
from tvmconv.models.graph import Graph

FORMATS = ".tflite"
_TFLITE_IDENTIFIER = b"TFL3"


def read(
    model: str | Path | bytes, input_shapes: Mapping[str, Sequence[int]] | None = None
) -> Graph:
    """Return the graph of a model: a path of a .tflite file, or its bytes.

    Args:
        model: path or bytes; the content says which format it has.
        input_shapes: shapes of inputs, by their names, for those whose shapes the model leaves open or which
            are to be others. An open batch is 1 unless it is given.

    Raises:
        ModelError: it cannot be read, or has something that is not supported; the message lists what, where.
        MissingToolError: the package that reads this format is not installed.
    """
    if isinstance(model, bytes):
        content, name = model, "model"
    else:
        name = Path(model).name
        try:
            content = Path(model).read_bytes()
        except OSError as error:
            raise ModelError(
                f"{model} cannot be read: {error.strerror}. Check the path."
            ) from error
    if content[4:8] != _TFLITE_IDENTIFIER:
        raise ModelError(
            f"{name}: not a model that can be read: {FORMATS} files have {_TFLITE_IDENTIFIER!r} at byte 4, "
            f"this one {content[4:8]!r}. Convert it to {FORMATS}."
        )
    try:
        from tvmconv.models.tflite.reader import read_tflite
    except ModuleNotFoundError as error:
        raise MissingToolError(
            f"Reading .tflite files needs the package {error.name}: pip install 'tvmconv[models]'"
        ) from error
    return read_tflite(content, name, input_shapes)
