"""Runs a model file in the runtime that it was made for, to compare values and times with ours."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tvmconv.errors import MissingToolError, ModelError
from tvmconv.models.graph import Array

Inputs = Mapping[str, Array]

# Suffix of a model's file -> the runtimes that open it, its own first.
RUNTIMES: Mapping[str, tuple[str, ...]] = {
    ".tflite": ("litert",),
    ".onnx": ("onnxruntime", "openvino"),
}
# As pip calls them, and as Python does.
PACKAGES: Mapping[str, tuple[str, str]] = {
    "litert": ("ai-edge-litert", "ai_edge_litert"),
    "onnxruntime": ("onnxruntime", "onnxruntime"),
    "openvino": ("openvino", "openvino"),
}


@dataclass(frozen=True)
class Opened:
    """A model with its inputs in place.

    Attributes:
        call: one inference, as a user of the runtime would run it.
        results: the outputs of the last call, in the model's order.
    """

    call: Callable[[], object]
    results: Callable[[], list[Array]]


def runtimes(model: str | Path) -> tuple[str, ...]:
    """Names of the runtimes that open ``model``, by its suffix."""
    return RUNTIMES.get(Path(model).suffix.lower(), ())


def is_installed(name: str) -> bool:
    """Whether a runtime's package is here."""
    return importlib.util.find_spec(PACKAGES[name][1]) is not None


def opened(name: str, model: str | Path, inputs: Inputs, threads: int) -> Opened:
    """Open a model file in the runtime ``name``.

    Args:
        name: one of `runtimes`.
        model: the file.
        inputs: by name; their shapes are what the model is prepared for.
        threads: of a call.

    Raises:
        MissingToolError: the runtime is not installed.
        ModelError: the model has other inputs.
    """
    if not is_installed(name):
        raise MissingToolError(
            f"{name} is not installed, which runs {Path(model).name}: pip install {PACKAGES[name][0]}"
        )
    open_: dict[str, Callable[[Path, Inputs, int], Opened]] = {
        "litert": _litert,
        "onnxruntime": _onnxruntime,
        "openvino": _openvino,
    }
    return open_[name](Path(model), inputs, threads)


def _litert(model: Path, inputs: Inputs, threads: int) -> Opened:
    """LiteRT, which computes on CPUs by XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(model), num_threads=threads)
    given = interpreter.get_input_details()
    arrays = _in_order(model, "LiteRT", [each["name"] for each in given], inputs)
    for each, array in zip(given, arrays, strict=True):
        if tuple(each["shape"]) != array.shape:
            interpreter.resize_tensor_input(each["index"], array.shape)
    interpreter.allocate_tensors()
    for each, array in zip(given, arrays, strict=True):
        interpreter.set_tensor(each["index"], array)
    numbers = [each["index"] for each in interpreter.get_output_details()]
    return Opened(interpreter.invoke, lambda: [interpreter.get_tensor(each) for each in numbers])


def _onnxruntime(model: Path, inputs: Inputs, threads: int) -> Opened:
    """ONNX Runtime on the CPU, its inputs bound once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    binding = session.io_binding()
    for name, array in zip(names, _in_order(model, "ONNX Runtime", names, inputs), strict=True):
        binding.bind_cpu_input(name, np.ascontiguousarray(array))
    for each in session.get_outputs():
        binding.bind_output(each.name)
    return Opened(lambda: session.run_with_iobinding(binding), binding.copy_outputs_to_cpu)


def _openvino(model: Path, inputs: Inputs, threads: int) -> Opened:
    """OpenVINO's CPU plugin, held to float32."""
    import openvino

    core = openvino.Core()
    read = core.read_model(str(model))
    names = [each.get_any_name() for each in read.inputs]
    arrays = _in_order(model, "OpenVINO", names, inputs)
    read.reshape({name: list(a.shape) for name, a in zip(names, arrays, strict=True)})
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 on CPUs that have it
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(read, "CPU", settings).create_infer_request()
    for number, array in enumerate(arrays):
        request.get_input_tensor(number).data[...] = array
    count = len(read.outputs)
    return Opened(
        request.infer,
        lambda: [np.array(request.get_output_tensor(number).data) for number in range(count)],
    )


def _in_order(model: Path, runtime: str, names: list[str], inputs: Inputs) -> list[Array]:
    missing = sorted(set(names) ^ set(inputs))
    if missing:
        raise ModelError(
            f"{model.name}: its inputs are {names} in {runtime}, and {list(inputs)} in ours. "
            "Is this the model that was compiled?"
        )
    return [inputs[name] for name in names]
