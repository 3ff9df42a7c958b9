"""OpenVINO's CPU plugin, held to float32."""

from __future__ import annotations

from tvmconv.measuring.peers import onnx_model
from tvmconv.measuring.peers.contender import Array, Prepared, from_nchw, to_nchw
from tvmconv.problem.spec import ConvSpec

NAME = "openvino"
PACKAGES = ("openvino", onnx_model.PACKAGE)
DTYPES = ("float32",)


def prepare(spec: ConvSpec, data: Array, filter: Array, threads: int) -> Prepared:
    """One synchronous request; input and output memory are the request's own."""
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(onnx_model.model(spec, filter)),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 on CPUs that have it
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    request = compiled.create_infer_request()
    request.get_input_tensor().data[...] = to_nchw(data)
    return Prepared(request.infer, lambda: from_nchw(request.get_output_tensor().data))
