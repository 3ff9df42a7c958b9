"""What a GPU can do at most, from its facts: nothing is measured here, unlike in `probe`."""

from collections.abc import Collection

from tvmconv.hardware import Machine
from tvmconv.measuring.roof.probe import Bandwidth, Roof
from tvmconv.problem.rules import ITEM_BYTES, TF32

_FLOATS = 4  # in what `Machine` calls a vector register of a GPU


def peak(machine: Machine, dtypes: Collection[str]) -> float:
    """Operations a second at the boost clock, two for each multiply-add, of the fastest of ``dtypes``.

    ``dtypes`` are `ConvSpec.precision`: float32 is what CUDA cores do with it, "tf32" what tensor cores do.
    """
    gpu = machine.gpu
    if gpu is None:
        raise ValueError(f"{machine.name} is no GPU")
    lanes = max((_lanes(machine, dtype) for dtype in dtypes), default=_cores(machine))
    return 2.0 * gpu.multiprocessors * lanes * gpu.clock


def roof(machine: Machine, dtypes: Collection[str]) -> Roof:
    """The peak, and the bandwidth of the card's memory for every size: that of L2 is in no fact."""
    flops = peak(machine, dtypes)
    if machine.gpu is None:
        raise ValueError(f"{machine.name} is no GPU")
    memory = Bandwidth(machine.gpu.l2_bytes, float(machine.gpu.bandwidth))
    return Roof(flops, flops, (memory,))


def _cores(machine: Machine) -> int:
    return machine.fma_ports * _FLOATS


def _lanes(machine: Machine, dtype: str) -> int:
    gpu = machine.gpu
    taken = {"uint8": "int8", "float32": "", TF32: "float32"}.get(dtype, dtype)
    if gpu is None or taken not in gpu.tensor_core_dtypes:
        return _cores(machine)
    rate = gpu.tensor_rates[ITEM_BYTES[taken].bit_length() - 1]
    return rate or _cores(machine)
