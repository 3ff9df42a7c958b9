"""The check of a GPU's kernels against the oracle: of problems here, of kernels on a GPU."""

from __future__ import annotations

import dataclasses

import gpu_layers
import numpy as np
import pytest
from gpu_layers import SPEC

from tvmconv.checking import gpu as gpu_check
from tvmconv.checking import oracle
from tvmconv.errors import BuildError
from tvmconv.runtime import tensors


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    return gpu_layers.load(tmp_path_factory.mktemp("layers"))[SPEC]


@gpu_layers.needs_gpu
def test_a_right_kernel_passes_and_says_how_far_off_it_is(kernel):
    difference = gpu_check.check(kernel)

    assert 0 < difference.error <= difference.allowed


@pytest.fixture
def harm(kernel, monkeypatch):
    """Have each call write 1.0 at a distance from its output afterwards, from the given call on."""

    def install(offset, call):
        gpu, calls, launch = kernel.gpu, [], kernel.gpu.launch
        one = gpu.upload(np.ones(1, np.float32))

        def harmful(function, pointers, stream):
            launch(function, pointers, stream)
            if function is kernel.function:
                calls.append(stream)
                if len(calls) >= call:
                    out = gpu_layers.struct_at(pointers[-1])
                    gpu.copy(out.data + offset, int(one.data_ptr()), 4, stream)

        monkeypatch.setattr(gpu, "launch", harmful, raising=False)

    return install


@gpu_layers.needs_gpu
def test_one_wrong_value_is_found(kernel, harm):
    harm(4 * 100, 1)
    with pytest.raises(BuildError, match="1 of 720 values are wrong"):
        gpu_check.check(kernel)


@gpu_layers.needs_gpu
@pytest.mark.parametrize("where", [-4, 720 * 4])
def test_a_write_beyond_the_output_is_found(kernel, harm, where):
    harm(where, 2)  # the call between guards
    with pytest.raises(BuildError, match="beyond its output"):
        gpu_check.check(kernel)


@gpu_layers.needs_gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
def test_values_go_there_and_back(kernel, dtype):
    for shape in ((3, 4), (0, 4)):
        array = np.arange(np.prod(shape)).reshape(shape).astype(tensors.numpy_dtype(dtype))
        there = kernel.gpu.upload(array)
        back = kernel.gpu.download(there)
        assert str(there.dtype) == dtype
        assert (back.dtype, back.shape) == (array.dtype, shape)
        assert back.tobytes() == array.tobytes()


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
