"""Runtimes that open a .tflite or .onnx file as it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmconv.models.foreign.opened import Opened, Request


def litert(wanted: Request) -> Opened:
    """LiteRT, which computes on CPUs by XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(wanted.model), num_threads=wanted.threads)
    given = interpreter.get_input_details()
    arrays = wanted.picked([each["name"] for each in given], wanted.inputs, "LiteRT")
    for each, array in zip(given, arrays, strict=True):
        if tuple(each["shape"]) != array.shape:
            interpreter.resize_tensor_input(each["index"], array.shape)
    interpreter.allocate_tensors()
    for each, array in zip(given, arrays, strict=True):
        interpreter.set_tensor(each["index"], array)
    numbers = [each["index"] for each in interpreter.get_output_details()]
    return Opened(interpreter.invoke, lambda: [interpreter.get_tensor(each) for each in numbers])


def onnx_runtime(wanted: Request) -> Opened:
    """ONNX Runtime on the CPU, its inputs bound once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = wanted.threads, 1
    session = onnxruntime.InferenceSession(
        str(wanted.model), options, providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_inputs()]
    binding = session.io_binding()
    for name, array in zip(names, wanted.picked(names, wanted.inputs, "ONNX Runtime"), strict=True):
        binding.bind_cpu_input(name, np.ascontiguousarray(array))
    for each in session.get_outputs():
        binding.bind_output(each.name)
    return Opened(lambda: session.run_with_iobinding(binding), binding.copy_outputs_to_cpu)


def openvino_cpu(wanted: Request) -> Opened:
    """OpenVINO's CPU plugin, held to float32."""
    import openvino

    core = openvino.Core()
    read = core.read_model(str(wanted.model))
    names = [each.get_any_name() for each in read.inputs]
    arrays = wanted.picked(names, wanted.inputs, "OpenVINO")
    read.reshape({name: list(a.shape) for name, a in zip(names, arrays, strict=True)})
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 on CPUs that have it
        "INFERENCE_NUM_THREADS": wanted.threads,
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
