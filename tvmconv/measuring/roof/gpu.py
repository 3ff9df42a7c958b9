"""What a GPU can do at most, from its facts: nothing is measured here, unlike in `probe`."""

from collections.abc import Collection

from tvmconv.hardware import Gpu
from tvmconv.measuring.roof.probe import Bandwidth, Roof
from tvmconv.problem.rules import ITEM_BYTES, TF32


def peak(gpu: Gpu, dtypes: Collection[str]) -> float:
    """Operations a second at the boost clock, two for each multiply-add, of the fastest of ``dtypes``.

    ``dtypes`` are `ConvSpec.precision`: float32 is what CUDA cores do with it, "tf32" what tensor cores do.
    """
    lanes = max((_lanes(gpu, dtype) for dtype in dtypes), default=gpu.fma_lanes)
    return 2.0 * gpu.multiprocessors * lanes * gpu.clock


def roof(gpu: Gpu, dtypes: Collection[str]) -> Roof:
    """The peak, and the bandwidth of the card's memory for every size: that of L2 is in no fact."""
    flops = peak(gpu, dtypes)
    return Roof(flops, flops, (Bandwidth(gpu.l2_bytes, float(gpu.bandwidth)),))


def _lanes(gpu: Gpu, dtype: str) -> int:
    taken = {"uint8": "int8", "float32": "", TF32: "float32"}.get(dtype, dtype)
    if taken not in gpu.tensor_core_dtypes:
        return gpu.fma_lanes
    return gpu.tensor_rates[ITEM_BYTES[taken].bit_length() - 1] or gpu.fma_lanes
