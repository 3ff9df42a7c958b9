"""Our own kernels, out of a bundle, called as anybody would call them."""

from __future__ import annotations

from tvmconv.measuring.peers.contender import Array, Prepared
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import Library, arrays, tensors

NAME = "tvmconv"


def prepare(library: Library, spec: ConvSpec, data: Array, filter: Array) -> Prepared:
    """Weights bound, output given."""
    bound = library[spec.key].bind(filter)
    x = arrays.aligned_copy(data)
    out = arrays.empty_aligned(spec.output_shape, tensors.numpy_dtype(spec.out_dtype))
    return Prepared(lambda: bound(x, out=out), lambda: out)
