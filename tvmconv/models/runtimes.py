"""Runtimes that a model file is compared with, in values and in time: what each opens, and what it needs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tvmconv.errors import MissingToolError, ModelError
from tvmconv.models.foreign import converted, native
from tvmconv.models.foreign.opened import Opened, Request


@dataclass(frozen=True)
class Runtime:
    """One runtime.

    Attributes:
        name: as ``--peers`` takes it.
        packages: those it needs, as pip calls them.
        modules: the same, as Python does.
        suffixes: of the files that it opens, itself or by its converter.
        open: opens one.
    """

    name: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    suffixes: tuple[str, ...]
    open: Callable[[Request], Opened]

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed, as pip calls them."""
        pairs = zip(self.packages, self.modules, strict=True)
        return [package for package, module in pairs if importlib.util.find_spec(module) is None]

    @property
    def versions(self) -> dict[str, str]:
        """Of the packages that are installed."""
        absent = self.missing
        return {
            name: importlib.metadata.version(name) for name in self.packages if name not in absent
        }

    def why_not(self, model: str | Path) -> str | None:
        """Why it cannot open a file of this name here, None where it can."""
        if Path(model).suffix.lower() not in self.suffixes:
            by = "pnnx, which converts for it," if "pnnx" in self.packages else "it"
            return f"{by} opens {' and '.join(self.suffixes)} files"
        if self.missing:
            return f"it is not installed: pip install {' '.join(self.missing)}"
        return None


_BOTH = (".tflite", ".onnx")
# A format's own runtime stands before others that open it.
RUNTIMES = (
    Runtime("litert", ("ai-edge-litert",), ("ai_edge_litert",), (".tflite",), native.litert),
    Runtime("onnxruntime", ("onnxruntime",), ("onnxruntime",), (".onnx",), native.onnx_runtime),
    Runtime("openvino", ("openvino",), ("openvino",), _BOTH, native.openvino_cpu),
    Runtime("mnn", ("MNN",), ("MNN",), _BOTH, converted.mnn),
    Runtime("ncnn", ("ncnn", "pnnx"), ("ncnn", "pnnx"), (".onnx",), converted.ncnn_net),
    Runtime("torch", ("torch", "pnnx"), ("torch", "pnnx"), (".onnx",), converted.pytorch),
)
NAMES = tuple(each.name for each in RUNTIMES)


def named(name: str) -> Runtime:
    """The runtime of that name, one of `NAMES`."""
    return RUNTIMES[NAMES.index(name)]


def own(model: str | Path) -> Runtime | None:
    """The runtime that ``model`` is made for, by its suffix; None for a file that no runtime opens."""
    suffix = Path(model).suffix.lower()
    return next((each for each in RUNTIMES if suffix in each.suffixes), None)


def opened(name: str, wanted: Request) -> Opened:
    """Open a model file in the runtime ``name``, one of `NAMES`.

    Raises:
        MissingToolError: the runtime is not installed.
        ModelError: it cannot open this file, or the model has other inputs or outputs.
    """
    runtime = named(name)
    reason = runtime.why_not(wanted.model)
    if reason:
        kind = MissingToolError if runtime.missing else ModelError
        raise kind(f"{name} cannot run {wanted.model.name}: {reason}")
    return runtime.open(wanted)
