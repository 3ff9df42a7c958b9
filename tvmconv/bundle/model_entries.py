"""What a manifest says of a whole model: what it takes and makes, and what computes it."""

# No `from __future__ import annotations`: whoever decodes them would evaluate strings, 1 ms a process.
import dataclasses


@dataclasses.dataclass(frozen=True)
class TensorEntry:
    """Name, shape and dtype of an input or output of a model."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """The model, the same for all variants; inputs and outputs in its own order."""

    name: str
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]


@dataclasses.dataclass(frozen=True)
class ArgumentEntry:
    """An array that a call reads or writes: ``begin`` bytes behind the beginning of ``memory``.

    That is ``weights``, ``arena``, ``input0`` or ``output0``, counted in the model's order.
    """

    shape: tuple[int, ...]
    dtype: str
    memory: str
    begin: int


@dataclasses.dataclass(frozen=True)
class LayerEntry:
    """One call: the function, the model's operators that it computes, and the shape of its result.

    ``key`` is that of the convolution, which the variant's kernels describe; None for any other function.
    ``arguments`` are the function's, the result last.
    """

    symbol: str
    operators: tuple[str, ...]
    shape: tuple[int, ...]
    key: str | None
    arguments: tuple[ArgumentEntry, ...]


@dataclasses.dataclass(frozen=True)
class ProgramEntry:
    """A model compiled for one machine.

    ``symbol`` is the function that takes inputs, weights, arena and outputs; ``weights`` the file that is
    read, with its SHA-256, its CRC-32 and its bytes. ``arena_bytes`` is the scratch memory of a call,
    which all values between share, of ``values_bytes`` together.
    """

    symbol: str
    weights: str
    sha256: str
    crc32: int
    weights_bytes: int
    arena_bytes: int
    values_bytes: int
    layers: tuple[LayerEntry, ...]
