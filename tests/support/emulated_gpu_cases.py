"""What loading and calling a bundle does where CUDA refuses; test_emulated_gpu.py runs each in a process.

The bundle is that of gpu_layers.py for sm_90, in the folder $BUNDLE.
"""

from __future__ import annotations

import ctypes
import os
import sys

import gpu_layers
import numpy as np
import pytest
from gpu_layers import EMPTY, LARGE, PLAIN, SPEC

import tvmconv
from tvmconv.checking import oracle
from tvmconv.errors import DeviceError, IncompatibleMachineError

ILLEGAL = "an illegal memory access was encountered"


def load(device="cuda"):
    return tvmconv.load(os.environ["BUNDLE"], device=device)


def bound(library, spec=SPEC):
    arrays, expected = gpu_layers.arguments(spec)
    here = gpu_layers.uploaded(library.gpu, arrays)
    return library[spec].bind(here["filter"], here.get("bias")), here, expected


def check(library, spec):
    layer, here, expected = bound(library, spec)
    result = library.gpu.download(layer(here["data"], here.get("residual")))
    oracle.assert_close(spec, expected, result)


def case_after_an_illegal_address_everything_is_refused_and_the_process_ends_as_ever():
    library = load()
    gpu = library.gpu
    layer, here, _ = bound(library)
    gone = gpu.empty(SPEC.output_shape, SPEC.out_dtype)
    target = int(gone.data_ptr())
    del gone
    layer.run_at(int(here["data"].data_ptr()), int(here["residual"].data_ptr()), target, 0)
    with pytest.raises(DeviceError, match=ILLEGAL):
        gpu.synchronize(0)
    with pytest.raises(DeviceError, match=ILLEGAL):
        layer(here["data"], here["residual"])
    with pytest.raises(DeviceError, match=ILLEGAL):
        gpu.download(here["data"])
    with pytest.raises(DeviceError, match=ILLEGAL):
        gpu.upload(np.zeros(4, np.float32))
    with pytest.raises(DeviceError, match=ILLEGAL):
        library[SPEC].bind(here["filter"], here["bias"])
    del here, layer  # TVM's own tensors would end the process here


def case_what_is_alive_at_the_end_of_the_process_does_no_harm():
    import builtins

    library = load()
    layer, here, _ = bound(library)
    builtins.kept = [layer, here, layer(here["data"], here["residual"])]
    builtins.kept.append(builtins.kept)
    globals()["also_kept"] = library.gpu.empty((4,), "float32")


def case_memory_that_runs_out_is_an_error_and_the_rest_goes_on():  # 2 MiB
    library = load()
    gpu = library.gpu
    layer, here, expected = bound(library)
    room = [gpu.empty((1 << 18,), "float32")]
    with pytest.raises(DeviceError, match=r"1048576 bytes cannot.*out of memory"):
        gpu.empty((1 << 18,), "float32")
    left = gpu.empty((1 << 17,), "float32")
    with pytest.raises(DeviceError, match="out of memory"):
        gpu.empty((1 << 17,), "float32")
    while True:  # until the workspace of a first call has no room
        try:
            room.append(gpu.empty((1 << 10,), "float32"))
        except DeviceError:
            break
    with pytest.raises(DeviceError, match="out of memory"):
        layer(here["data"], here["residual"])
    del left
    result = layer(here["data"], here["residual"])
    oracle.assert_close(SPEC, expected, gpu.download(result))


def case_another_gpu_than_the_first():  # two of sm_90
    first, second = load(), load("cuda:1")
    for spec in (SPEC, LARGE, PLAIN, EMPTY):
        check(second, spec)
        check(first, spec)
    layer, here, _ = bound(second)
    elsewhere = gpu_layers.uploaded(first.gpu, gpu_layers.arguments()[0])
    with pytest.raises(ValueError, match=r"x of .* is on cuda:0, and the kernel runs on cuda:1"):
        layer(elsewhere["data"], here["residual"])
    current = ctypes.c_int()
    first.gpu.call("cudaSetDevice", 0)
    layer(here["data"], here["residual"])
    second.gpu.synchronize(0)
    first.gpu.call("cudaGetDevice", ctypes.byref(current))
    assert current.value == 0  # as it was
    with pytest.raises(ValueError, match=r"no device cuda:2; this process has cuda:0: NVIDIA H100"):
        load("cuda:2")


def case_an_older_gpu():  # sm_80
    with pytest.raises(
        IncompatibleMachineError,
        match=r"A100 \(emulated\), sm_80[^$]*sm_90 needs a GPU of sm_90 or newer",
    ):
        load()


def case_a_newer_gpu_compiles_the_ptx():  # sm_100
    library = load()
    for spec in (SPEC, LARGE, PLAIN, EMPTY):
        check(library, spec)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
