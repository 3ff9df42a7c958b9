"""Other frameworks' tensors go in and come out without a copy."""

import numpy as np
import plain_bundle
import pytest
from plain_bundle import EMPTY, PACKED, RESIDUAL, SPECS, TINY, assert_right, operands
from runtime_calls import presented, shared_bundle

from tvmconv.runtime import load


@pytest.fixture(scope="module")
def path():
    return shared_bundle()


@pytest.fixture(scope="module")
def library(path):
    return load(path)


class Tensor:
    """A CPU tensor of a framework that this package has never heard of."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device


@pytest.mark.parametrize("how", ["plain", "strided", "reversed", "fortran", "element offset"])
def test_dlpack_tensors_are_read_in_place(library, how):
    x, w, bias, residual = operands(RESIDUAL)
    tensors = [Tensor(presented(value, how)) for value in (x, w, bias, residual)]
    result = library[RESIDUAL](*tensors)
    assert type(result) is np.ndarray
    assert_right(RESIDUAL, result, x, w, bias, residual)
    assert_right(RESIDUAL, library[RESIDUAL](tensors[0], w, bias, tensors[3]), x, w, bias, residual)


def test_tensors_elsewhere_are_refused(library):
    x, w, _, _ = operands(TINY)
    with pytest.raises(ValueError, match=r"x of .* is not in CPU memory .*type is 2"):
        library[TINY](Tensor(x, device=(2, 0)), w)
    with pytest.raises(TypeError, match=r"out of .* must be a NumPy array or a torch tensor"):
        library[TINY](x, w, out=Tensor(np.zeros(TINY.output_shape, np.float32)))


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_torch_in_torch_out(library, spec):
    torch = pytest.importorskip("torch")
    values = operands(spec)

    def tensor(array):
        if array is None:
            return None
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    x, w, bias, residual = (tensor(value) for value in values)
    layer = library[spec].bind(w, bias)
    result = layer(x, residual)
    assert isinstance(result, torch.Tensor)
    assert result.dtype == x.dtype
    assert_right(spec, result.double().numpy(), *values)
    out = torch.zeros_like(result)
    strided = torch.stack([x, x], -1)[..., 0]
    assert layer(strided, residual, out=out) is out
    assert torch.equal(out, result)


@pytest.mark.slow
def test_torch_tensors_that_have_no_plain_memory(library):
    torch = pytest.importorskip("torch")
    x, w, _, _ = operands(TINY)
    x = torch.from_numpy(x)
    for wrong, error, message in (
        (x.clone().requires_grad_(), ValueError, r"pass it with \.detach"),
        (torch.complex(x, x).conj().imag, ValueError, r"pass it with \.resolve_neg"),
        (x.to_sparse(), TypeError, "DLPack"),
        (x.to("meta"), TypeError, "DLPack"),
        (x.to(torch.complex64), TypeError, "complex64"),
    ):
        with pytest.raises(error, match=message):
            library[TINY](wrong, w)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_tensorflow_in_tensorflow_out(library, spec):
    tensorflow = pytest.importorskip("tensorflow")
    values = operands(spec)
    tensors = [None if value is None else tensorflow.constant(value) for value in values]
    result = library[spec](*tensors)
    assert isinstance(result, tensorflow.Tensor)
    assert_right(spec, result.numpy(), *values)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [PACKED, EMPTY, plain_bundle.BRAIN], ids=lambda s: s.key)
def test_jax_in_jax_out(library, spec):
    jax = pytest.importorskip("jax")
    values = operands(spec)
    tensors = [None if value is None else jax.numpy.asarray(value) for value in values]
    result = library[spec](*tensors)
    assert isinstance(result, jax.Array)
    assert_right(spec, np.asarray(result), *values)
