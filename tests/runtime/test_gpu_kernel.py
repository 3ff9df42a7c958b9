"""Calls of GPU kernels: arguments, streams, workspaces, captures and errors, on a GPU or the emulated one."""

from __future__ import annotations

import ctypes
import threading

import gpu_layers
import numpy as np
import pytest
from gpu_layers import EMPTY, LARGE, PLAIN, SPEC, Foreign

from tvmconv.checking import oracle
from tvmconv.errors import DeviceError
from tvmconv.runtime.cuda import tensors as gpu_tensors

pytestmark = gpu_layers.needs_gpu


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return gpu_layers.load(tmp_path_factory.mktemp("layers"))


@pytest.fixture(scope="module")
def problem():
    return gpu_layers.arguments()


@pytest.fixture
def gpu(library):
    return library.gpu


@pytest.fixture
def kernel(library):
    return library[SPEC]


@pytest.fixture
def tensors(gpu, problem):
    return gpu_layers.uploaded(gpu, problem[0])


@pytest.fixture
def layer(kernel, tensors):
    return kernel.bind(tensors["filter"], tensors["bias"])


@pytest.fixture
def out(gpu):
    return gpu_layers.nothing(gpu)


@pytest.fixture
def seen(gpu, monkeypatch):
    """Streams of launches, and shapes that were allocated."""
    found = {"launches": [], "allocated": []}
    launch, empty = gpu.launch, gpu.empty
    monkeypatch.setattr(
        gpu, "launch", lambda *a: found["launches"].append(a[2]) or launch(*a), raising=False
    )
    monkeypatch.setattr(
        gpu, "empty", lambda *a: found["allocated"].append(a) or empty(*a), raising=False
    )
    return found


@pytest.fixture
def current(monkeypatch):
    """Let the test say which stream is current."""
    streams = [0]
    monkeypatch.setattr(gpu_tensors.Exchange, "stream", lambda _self, _index: streams[0])
    return streams


def right(gpu, problem, tensor, spec=SPEC):
    oracle.assert_close(spec, problem[1], gpu.download(tensor))


def test_a_call_returns_a_new_tensor_of_right_values(gpu, layer, tensors, problem):
    right(gpu, problem, layer(tensors["data"], tensors["residual"]))


def test_out_is_written_and_returned(gpu, layer, tensors, problem, out):
    assert layer(tensors["data"], tensors["residual"], out) is out
    right(gpu, problem, out)


def test_a_kernel_can_be_called_without_binding(gpu, kernel, tensors, problem):
    result = kernel(*(tensors[name] for name in ("data", "filter", "bias", "residual")))

    right(gpu, problem, result)


def test_the_workspace_is_the_kernels_own(kernel):
    assert kernel.entry.workspace >= 2 * 4 * 2 * 6 * 5 * 12  # two parts of the sums


@pytest.mark.parametrize("spec", [LARGE, PLAIN, EMPTY], ids=["large", "plain", "empty"])
def test_other_kernels(library, spec):
    arrays, expected = gpu_layers.arguments(spec)
    tensors = gpu_layers.uploaded(library.gpu, arrays)

    result = library[spec].bind(tensors["filter"], tensors.get("bias"))(tensors["data"])
    oracle.assert_close(spec, expected, library.gpu.download(result))


def test_weights_are_copied(gpu, kernel, tensors, problem):
    layer = kernel.bind(tensors["filter"], tensors["bias"])
    for name in ("filter", "bias"):
        gpu.fill(int(tensors[name].data_ptr()), 0, problem[0][name].nbytes, 0)

    right(gpu, problem, layer(tensors["data"], tensors["residual"]))


def test_with_out_only_the_first_call_in_a_stream_allocates(
    gpu, layer, tensors, out, current, seen
):
    with gpu_layers.stream(gpu) as other:
        for stream, allocations in ((0, 1), (0, 0), (other, 1), (0, 0), (other, 0)):
            current[0] = stream
            seen["allocated"].clear()
            layer(tensors["data"], tensors["residual"], out)
            assert len(seen["allocated"]) == allocations
        gpu.synchronize(other)


def test_each_call_goes_into_the_current_stream(gpu, layer, tensors, out, current, seen):
    with gpu_layers.stream(gpu) as other:
        for stream in (0, other):
            current[0] = stream
            layer(tensors["data"], tensors["residual"], out)
        gpu.synchronize(other)
        assert seen["launches"] == [0, other]


def test_calls_in_several_streams_do_not_disturb_each_other(gpu, layer, problem, current):
    """The workspace, too, is each stream's own."""
    arrays, _ = problem
    with gpu_layers.stream(gpu) as one, gpu_layers.stream(gpu) as other:
        found = []
        for factor, stream in ((1, one), (-1, other), (2, one), (-2, other)):
            given = {**arrays, "data": (arrays["data"] * factor).astype(np.float32)}
            here = gpu_layers.uploaded(gpu, given)
            current[0] = stream
            result = gpu_layers.nothing(gpu)
            layer(here["data"], here["residual"], result)
            found.append((oracle.conv(SPEC, **given), result, here))
        gpu.synchronize(other)
        gpu.synchronize(one)
        for expected, result, _ in found:
            right(gpu, (None, expected), result)


def replayed(gpu, graph):
    assert graph.seconds(1) > 0  # waits for its end


def test_a_captured_layer_computes_in_every_replay(gpu, layer, tensors, problem, out):
    arrays, expected = problem
    addresses = (int(tensors[name].data_ptr()) for name in ("data", "residual"))
    source, addend = addresses
    target = int(out.data_ptr())
    with gpu_layers.graph_of(
        gpu, lambda stream: layer.run_at(source, addend, target, stream)
    ) as graph:
        replayed(gpu, graph)
        right(gpu, problem, out)
        twice = {**arrays, "data": (arrays["data"] * 2).astype(np.float32)}
        here = gpu.upload(twice["data"])
        gpu.copy(source, int(here.data_ptr()), twice["data"].nbytes, 0)
        gpu.synchronize(0)
        right(gpu, (None, expected), out)  # nothing ran yet
        replayed(gpu, graph)
        right(gpu, (None, oracle.conv(SPEC, **twice)), out)


def test_a_graph_keeps_the_layer_that_it_replays(gpu, kernel, tensors, problem, out):
    layer = kernel.bind(tensors["filter"], tensors["bias"])
    addresses = tuple(int(tensors[name].data_ptr()) for name in ("data", "residual"))
    target = int(out.data_ptr())
    graph = gpu_layers.graph_of(
        gpu, lambda stream, layer=layer: layer.run_at(*addresses, target, stream), 3
    )
    del layer
    with graph:
        replayed(gpu, graph)
    right(gpu, problem, out)


def test_after_one_call_a_capture_in_any_stream_allocates_nothing(
    gpu, layer, tensors, out, current, seen
):
    layer(tensors["data"], tensors["residual"], out)
    gpu.synchronize(0)
    with gpu_layers.capture(gpu) as stream:
        current[0] = stream
        seen["allocated"].clear()
        layer(tensors["data"], tensors["residual"], out)
        assert seen["allocated"] == []


@pytest.mark.parametrize("flags", [1, 0], ids=["non-blocking", "blocking"])
def test_what_a_capture_cannot_have_is_refused_and_the_capture_goes_on(
    gpu, kernel, layer, tensors, out, current, flags
):
    other = gpu_layers.capture(gpu, flags)
    with other as stream:  # its end raises if anything spoilt it
        current[0] = stream
        with pytest.raises(DeviceError, match=r"capturing.*first call: call the layer once before"):
            layer(tensors["data"], tensors["residual"], out)
        with pytest.raises(DeviceError, match=r"capturing.*pass it as out before the capture"):
            layer(tensors["data"], tensors["residual"])
        with pytest.raises(DeviceError, match=r"capturing.*bind before the capture"):
            kernel.bind(tensors["filter"], tensors["bias"])


def test_the_default_stream_beside_a_blocking_capture_is_refused(gpu, layer, tensors, out):
    with gpu_layers.capture(gpu, flags=0), pytest.raises(DeviceError, match="capturing"):
        layer(tensors["data"], tensors["residual"], out)


def test_what_a_graph_cannot_capture_is_told_by_the_first_error(gpu):
    def launch(stream):
        if gpu.is_capturing(stream):
            gpu.empty((1 << 20,), "float32")

    with pytest.raises(DeviceError, match=r"cannot be allocated.*capturing"):
        gpu_layers.graph_of(gpu, launch)
    gpu.synchronize(0)
    assert gpu.empty((4,), "float32") is not None


def test_tensors_that_are_dropped_in_a_capture_do_not_spoil_it(gpu, kernel, tensors):
    dropped = [kernel.bind(tensors["filter"], tensors["bias"]), gpu.empty((4,), "float32")]
    with gpu_layers.capture(gpu):
        dropped.clear()


def test_threads_may_call_one_layer(gpu, layer, problem):
    results = {}

    def call(number):
        here = gpu_layers.uploaded(gpu, problem[0])
        for _ in range(5):
            results[number] = layer(here["data"], here["residual"], gpu_layers.nothing(gpu))
        gpu.synchronize(0)

    workers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in results.values():
        right(gpu, problem, result)
    assert len(results) == 4


def view(**changes):
    return lambda gpu, array: Foreign(
        gpu_layers.numbers(gpu, 2 * array.size), array.shape, **changes
    )


BAD = {
    "NumPy": (lambda _, array: array, ValueError, r"is a NumPy array.*cuda:0.*move it"),
    "main memory": (view(device=(1, 0)), ValueError, r"is in cpu memory.*cuda:0.*move it"),
    "another GPU": (view(device=(2, 1)), ValueError, r"is on cuda:1, and the kernel runs on cuda:0"),
    "another maker": (view(device=(10, 0)), ValueError, r"is in DLPack device 10 memory"),
    "dtype": (view(code=(2, 16)), TypeError, "must have dtype float32, dtype float16"),
    "shape": (lambda gpu, array: gpu.upload(array[:1]), ValueError, r"must have shape \(2, 6, 5"),
    "strided": (view(step=2), ValueError, r"is not contiguous.*\.contiguous\(\)"),
    "misaligned": (view(offset=4), ValueError, r"no multiple of 16 bytes.*clone"),
    "a list": (lambda _, array: array.tolist(), TypeError, "must be a tensor on cuda:0.*list was given"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", ["x", "residual", "out"])
def test_a_tensor_that_would_have_to_be_copied_is_refused(
    gpu, layer, tensors, out, problem, seen, kind, name
):
    arrays, _ = problem
    make, error, message = BAD[kind]
    given = {"x": tensors["data"], "residual": tensors["residual"], "out": out}
    given[name] = make(gpu, arrays["data"] if name == "x" else arrays["residual"])

    with pytest.raises(error, match=f"^{name} of conv2d_.*{message}"):
        layer(**given)
    assert seen["launches"] == []


@pytest.mark.parametrize("kind", ["NumPy", "main memory", "strided", "misaligned"])
def test_weights_are_checked_too(gpu, kernel, tensors, problem, kind):
    arrays, _ = problem
    make, error, message = BAD[kind]

    with pytest.raises(error, match=f"^w of conv2d_.*{message}"):
        kernel.bind(make(gpu, arrays["filter"]), tensors["bias"])
    if kind != "strided" or arrays["bias"].ndim > 1:
        with pytest.raises(error, match=f"^bias of conv2d_.*{message}"):
            kernel.bind(tensors["filter"], make(gpu, arrays["bias"]))


def test_another_frameworks_tensors_are_taken(gpu, layer, tensors, problem, out):
    arrays, _ = problem
    given = {name: Foreign(tensors[name], arrays[name].shape) for name in ("data", "residual")}
    target = Foreign(out, SPEC.output_shape)

    assert layer(given["data"], given["residual"], target) is target
    right(gpu, problem, out)


def test_out_must_lie_apart_from_the_inputs(gpu, layer, tensors):
    with pytest.raises(ValueError, match=r"out of .* overlaps an input"):
        layer(tensors["data"], tensors["residual"], tensors["residual"])

    held = gpu_layers.numbers(gpu, 720 + 480)  # data has 480 elements
    data = Foreign(held, SPEC.input_shape)
    with pytest.raises(ValueError, match="overlaps"):
        layer(data, tensors["residual"], Foreign(held, SPEC.output_shape))
    layer(data, tensors["residual"], Foreign(held, SPEC.output_shape, offset=4 * 480))
    gpu.synchronize(0)


def test_what_the_kernel_has_must_be_given_and_nothing_else(library, kernel, layer, tensors):
    with pytest.raises(ValueError, match="built with residual, but none was given"):
        layer(tensors["data"])
    with pytest.raises(ValueError, match="built with bias, but none was given"):
        kernel.bind(tensors["filter"])

    here = gpu_layers.uploaded(library.gpu, gpu_layers.arguments(PLAIN)[0])
    bare = library[PLAIN].bind(here["filter"])
    with pytest.raises(ValueError, match="built without residual"):
        bare(here["data"], tensors["residual"])
    with pytest.raises(ValueError, match="built without bias"):
        library[PLAIN].bind(here["filter"], tensors["bias"])


def test_an_empty_output_is_computed_by_nobody(gpu, library, seen):
    layer = library[EMPTY].bind(gpu.upload(np.ones(EMPTY.filter_shape, np.float32)))
    x, out = (gpu.upload(np.ones(s, np.float32)) for s in (EMPTY.input_shape, EMPTY.output_shape))

    assert tuple(layer(x).shape) == EMPTY.output_shape
    assert layer(x, out=out) is out
    assert seen["launches"] == []


def test_too_little_memory_says_how_much_was_asked_for_and_goes_on(gpu, layer, tensors, problem):
    with pytest.raises(
        DeviceError, match=r"4398046511104 bytes cannot be allocated.*out of memory.*`nvidia-smi`"
    ):
        gpu.empty((1 << 40,), "float32")
    right(gpu, problem, layer(tensors["data"], tensors["residual"]))


def test_results_are_not_there_before_the_stream_is_waited_for(gpu, layer, tensors, problem, out):
    """With real streams this cannot be seen for sure; with the emulated driver's it can."""
    host = (ctypes.c_char * problem[1].astype("f4").nbytes)()
    if "emulated" not in gpu.device.name:
        pytest.skip("a GPU may have finished by then")
    addresses = (int(tensors[name].data_ptr()) for name in ("data", "residual"))
    with gpu_layers.stream(gpu) as one, gpu_layers.stream(gpu) as other:
        layer.run_at(*addresses, int(out.data_ptr()), one)
        gpu.call("cudaMemcpyAsync", host, int(out.data_ptr()), len(host), 2, other)
        assert set(host.raw) == {0xFF}
        gpu.synchronize(one)
        right(gpu, problem, out)
