"""The check of a GPU's kernels against the oracle, rehearsed on main memory."""

from __future__ import annotations

import ctypes
import dataclasses

import gpu_rehearsal
import numpy as np
import pytest
from gpu_rehearsal import SPEC, Rehearsal

from tvmconv import oracle
from tvmconv.errors import BuildError
from tvmconv.gpu import check as gpu_check
from tvmconv.runtime import arrays
from tvmconv.runtime.gpu_device import Gpu


@pytest.fixture
def kernel(monkeypatch):
    # Where `check` hands over TVM's own tensors, which here say that they are in main memory.
    monkeypatch.setattr(gpu_rehearsal.Rehearsal, "upload", as_if_on_gpu)
    return gpu_rehearsal.kernel(Rehearsal())


class OnGpu(gpu_rehearsal.Tensor):
    def data_ptr(self):
        return arrays.data_address(self.array)

    @property
    def shape(self):
        return self.array.shape

    @property
    def dtype(self):
        return self.array.dtype.name


def as_if_on_gpu(_gpu, array):
    return OnGpu(array)


@pytest.fixture(autouse=True)
def _download(monkeypatch):
    def download(_gpu, tensor):
        return tensor.array.copy() if isinstance(tensor, OnGpu) else np.from_dlpack(tensor).copy()

    monkeypatch.setattr(gpu_rehearsal.Rehearsal, "download", download)


def test_a_right_kernel_passes_and_says_how_far_off_it_is(kernel):
    difference = gpu_check.check(kernel)

    assert 0 < difference.error <= difference.allowed


def broken(kernel, harm):
    """The kernel, whose function does harm to its output afterwards."""

    def function(*pointers):
        kernel.function(*pointers)
        harm(arrays.DLTensor.from_address(pointers[-1].value).data)

    return dataclasses.replace(kernel, function=function)


def test_one_wrong_value_is_found(kernel):
    def harm(address):
        ctypes.c_float.from_address(address + 4 * 100).value += 1

    with pytest.raises(BuildError, match="1 of 720 values are wrong"):
        gpu_check.check(broken(kernel, harm))


@pytest.mark.parametrize("where", [-4, 720 * 4])
def test_a_write_beyond_the_output_is_found(kernel, where):
    calls = []

    def harm(address):
        calls.append(address)
        if len(calls) == 2:  # the call between guards
            ctypes.c_float.from_address(address + where).value = 1

    with pytest.raises(BuildError, match="beyond its output"):
        gpu_check.check(broken(kernel, harm))


LARGE = dataclasses.replace(SPEC, input_shape=(8, *SPEC.input_shape[1:]))


def test_a_large_batch_repeats_three_images():
    found = gpu_check.problem(LARGE)

    assert len({image.tobytes() for image in found.arguments["data"]}) == 3
    assert {name: array.shape for name, array in found.arguments.items()} == {
        name: array.shape for name, array in oracle.random_arguments(LARGE, 0).items()
    }
    expected = found.expected[found.images]
    np.testing.assert_allclose(expected, oracle.conv(LARGE, **found.arguments))
    gpu_check.compare(found, LARGE, expected.astype(np.float32))


@pytest.mark.parametrize("image", [0, 2, 3, 7])
def test_a_wrong_value_in_any_image_of_a_batch_is_found(image):
    found = gpu_check.problem(LARGE)
    out = found.expected[found.images].astype(np.float32)
    out[image, 0, 0, 0] += 1

    with pytest.raises(BuildError, match=r"1 of .* values are wrong"):
        gpu_check.compare(found, LARGE, out)


def test_images_that_round_differently_are_still_right():
    found = gpu_check.problem(LARGE)
    out = found.expected[found.images].astype(np.float32)
    out[7] = np.nextafter(out[7], np.float32(9))

    gpu_check.compare(found, LARGE, out)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
def test_values_go_there_and_back(dtype):
    gpu = Rehearsal()
    for shape in ((3, 4), (0, 4)):
        array = np.arange(np.prod(shape)).reshape(shape).astype(oracle.numpy_dtype(dtype))
        there = Gpu.upload(gpu, array)
        back = Gpu.download(gpu, there)
        assert str(there.dtype) == dtype
        assert (back.dtype, back.shape) == (array.dtype, shape)
        assert back.tobytes() == array.tobytes()
