"""Calls of GPU kernels: arguments, workspaces, captures and errors, rehearsed on main memory.

See gpu_rehearsal.py for what that shows and what only a GPU shows.
"""

from __future__ import annotations

import dataclasses
import threading

import gpu_rehearsal
import numpy as np
import pytest
from gpu_rehearsal import SPEC, Rehearsal, Tensor, as_array

from tvmconv import oracle
from tvmconv.errors import DeviceError
from tvmconv.runtime import GpuKernel, empty_aligned, gpu_tensors
from tvmconv.spec import ConvSpec

WORKSPACE = ((720,), "float32")  # 2 x 6 x 5 pixels x 12 channels


@pytest.fixture(scope="module")
def problem():
    return gpu_rehearsal.arguments()


@pytest.fixture
def kernel():
    return gpu_rehearsal.kernel(Rehearsal())


@pytest.fixture
def layer(kernel, problem):
    arrays, _ = problem
    return kernel.bind(Tensor(arrays["filter"]), Tensor(arrays["bias"]))


@pytest.fixture
def tensors(problem):
    return {name: Tensor(array) for name, array in problem[0].items()}


def out_tensor():
    return Tensor(np.full(SPEC.output_shape, np.nan, np.float32))


@pytest.fixture
def streams(monkeypatch):
    """Let the test say which stream is current."""
    current = [0]
    monkeypatch.setattr(gpu_tensors.Exchange, "stream", lambda _self, _index: current[0])
    return current


def test_a_call_returns_a_new_tensor_of_right_values(layer, tensors, problem):
    result = layer(tensors["data"], tensors["residual"])

    oracle.assert_close(SPEC, problem[1], as_array(result))


def test_out_is_written_and_returned(layer, tensors, problem):
    out = out_tensor()

    assert layer(tensors["data"], tensors["residual"], out) is out
    oracle.assert_close(SPEC, problem[1], out.array)


def test_a_kernel_can_be_called_without_binding(kernel, tensors, problem):
    result = kernel(*(tensors[name] for name in ("data", "filter", "bias", "residual")))

    oracle.assert_close(SPEC, problem[1], as_array(result))


def test_weights_are_copied(kernel, tensors, problem):
    layer = kernel.bind(tensors["filter"], tensors["bias"])
    tensors["filter"].array[...] = 0
    tensors["bias"].array[...] = 0

    oracle.assert_close(SPEC, problem[1], as_array(layer(tensors["data"], tensors["residual"])))


def test_with_out_only_the_first_call_in_a_stream_allocates(layer, tensors, streams):
    gpu = layer.kernel.gpu
    gpu.allocated.clear()
    for stream, expected in ((0, [WORKSPACE]), (0, []), (7, [WORKSPACE]), (0, []), (7, [])):
        streams[0] = stream
        layer(tensors["data"], tensors["residual"], out_tensor())
        assert gpu.allocated == expected
        gpu.allocated.clear()


def test_each_call_goes_into_the_current_stream(layer, tensors, streams):
    layer.kernel.gpu.launches.clear()
    for stream in (0, 5):
        streams[0] = stream
        layer(tensors["data"], tensors["residual"], out_tensor())

    assert layer.kernel.gpu.launches == [0, 5]


def test_after_one_call_a_capture_in_any_stream_allocates_nothing(layer, tensors, streams, problem):
    gpu = layer.kernel.gpu
    layer(tensors["data"], tensors["residual"], out_tensor())
    streams[0] = 9  # which the framework made for the capture
    gpu.capturing.add(9)
    gpu.allocated.clear()
    out = out_tensor()

    layer(tensors["data"], tensors["residual"], out)

    assert gpu.allocated == []
    oracle.assert_close(SPEC, problem[1], out.array)


def test_what_a_capture_cannot_have_is_refused(kernel, layer, tensors):
    kernel.gpu.capturing.add(0)
    with pytest.raises(DeviceError, match=r"capturing.*first call: call the layer once before"):
        layer(tensors["data"], tensors["residual"], out_tensor())
    with pytest.raises(DeviceError, match=r"capturing.*pass it as out before the capture"):
        layer(tensors["data"], tensors["residual"])
    with pytest.raises(DeviceError, match=r"capturing.*bind before the capture"):
        kernel.bind(tensors["filter"], tensors["bias"])


def test_threads_may_call_one_layer(layer, problem):
    arrays, expected = problem
    results = {}

    def call(number):
        data, residual = Tensor(arrays["data"]), Tensor(arrays["residual"])
        for _ in range(20):
            results[number] = layer(data, residual, out_tensor())

    workers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for out in results.values():
        oracle.assert_close(SPEC, expected, out.array)
    assert len(results) == 4


def on(device):
    return lambda array: Tensor(array, device=device)


def strided(array):
    """Every second element along the last axis."""
    return Tensor.of(np.repeat(array, 2, axis=-1)[..., ::2])


BAD = {
    "NumPy": (lambda array: array, ValueError, r"is a NumPy array.*cuda:0.*move it"),
    "main memory": (on((1, 0)), ValueError, r"is in cpu memory.*cuda:0.*move it"),
    "another GPU": (on((2, 1)), ValueError, r"is on cuda:1, and the kernel runs on cuda:0"),
    "another maker": (on((10, 0)), ValueError, r"is in DLPack device 10 memory"),
    "dtype": (lambda array: Tensor(array.astype("f2")), TypeError, "must have dtype float32, dtype float16"),
    "shape": (lambda array: Tensor(array[:1]), ValueError, r"must have shape \(2, 6, 5"),
    "strided": (strided, ValueError, r"is not contiguous.*\.contiguous\(\)"),
    "misaligned": (lambda array: Tensor(array, offset=1), ValueError, r"no multiple of 16 bytes.*clone"),
    "a list": (lambda array: array.tolist(), TypeError, "must be a tensor on cuda:0.*list was given"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", ["x", "residual", "out"])
def test_a_tensor_that_would_have_to_be_copied_is_refused(layer, problem, kind, name):
    arrays, _ = problem
    make, error, message = BAD[kind]
    given = {
        "x": Tensor(arrays["data"]),
        "residual": Tensor(arrays["residual"]),
        "out": out_tensor(),
    }
    given[name] = make(arrays["data"] if name == "x" else arrays["residual"])
    layer.kernel.gpu.launches.clear()

    with pytest.raises(error, match=f"^{name} of conv2d_.*{message}"):
        layer(**given)
    assert layer.kernel.gpu.launches == []


@pytest.mark.parametrize("kind", ["NumPy", "main memory", "strided", "misaligned"])
def test_weights_are_checked_too(kernel, problem, kind):
    arrays, _ = problem
    make, error, message = BAD[kind]

    with pytest.raises(error, match=f"^w of conv2d_.*{message}"):
        kernel.bind(make(arrays["filter"]), Tensor(arrays["bias"]))
    with pytest.raises(error, match=f"^bias of conv2d_.*{message}"):
        kernel.bind(Tensor(arrays["filter"]), make(arrays["bias"]))


def test_out_must_lie_apart_from_the_inputs(layer, tensors):
    with pytest.raises(ValueError, match=r"out of .* overlaps an input"):
        layer(tensors["data"], tensors["residual"], tensors["residual"])

    held = empty_aligned((720 + 240,), np.float32)  # data has 240 elements
    data, out = held[:240].reshape(SPEC.input_shape), held[:720].reshape(SPEC.output_shape)
    with pytest.raises(ValueError, match="overlaps"):
        layer(Tensor.of(data), tensors["residual"], Tensor.of(out))
    behind = held[240:].reshape(SPEC.output_shape)
    data[...] = 0
    layer(Tensor.of(data), tensors["residual"], Tensor.of(behind))


def test_what_the_kernel_has_must_be_given_and_nothing_else(kernel, layer, tensors):
    with pytest.raises(ValueError, match="built with residual, but none was given"):
        layer(tensors["data"])
    with pytest.raises(ValueError, match="built with bias, but none was given"):
        kernel.bind(tensors["filter"])

    bare = gpu_rehearsal.kernel(
        Rehearsal(), dataclasses.replace(SPEC, bias=False, residual=False)
    ).bind(tensors["filter"])
    with pytest.raises(ValueError, match="built without residual"):
        bare(tensors["data"], tensors["residual"])
    with pytest.raises(ValueError, match="built without bias"):
        bare.kernel.bind(tensors["filter"], tensors["bias"])


def test_an_empty_output_is_computed_by_nobody(kernel):
    spec = ConvSpec.conv2d((0, 5, 5, 3), (3, 3, 3, 8))
    entry = dataclasses.replace(kernel.entry, symbol=None, pack=None, workspace=0)
    empty = GpuKernel(spec, entry, "rehearsal", kernel.gpu, None, None)
    x, w = (Tensor(np.ones(shape, np.float32)) for shape in (spec.input_shape, spec.filter_shape))
    out = Tensor(np.ones(spec.output_shape, np.float32))

    layer = empty.bind(w)
    assert as_array(layer(x)).shape == (0, 5, 5, 8)
    assert layer(x, out=out) is out
    assert kernel.gpu.launches == []


def test_too_little_memory_says_how_much_was_asked_for(kernel):
    def fail(*_):
        raise RuntimeError("CUDA: out of memory\nstack of calls")

    kernel.gpu._allocate = fail
    with pytest.raises(
        DeviceError, match=r"2880 bytes cannot be allocated.*out of memory\. `nvidia"
    ):
        kernel.gpu.empty((720,), "float32")
