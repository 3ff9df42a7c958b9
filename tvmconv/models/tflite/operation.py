"""One operator of the file while it is read: its inputs as values of the graph, and what it adds to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tvmconv.errors import ModelError
from tvmconv.models.constants import settled
from tvmconv.models.graph import ABSENT, Array, Builder
from tvmconv.models.tflite.file import FileOperator, FileQuantization
from tvmconv.problem.arguments import same_pads

# ActivationFunctionType of schema.fbs; 2, RELU_N1_TO_1, is a clip and 5, SIGN_BIT, of bytes only.
_ACTIVATIONS: Final = {0: None, 1: "relu", 3: "relu6", 4: "tanh"}
_RELU_N1_TO_1: Final = 2
# Those that a convolution of the graph applies itself.
_FUSED: Final = (None, "relu", "relu6")


@dataclass(frozen=True)
class Operation:
    """What the functions of the tables read an operator with.

    Attributes:
        builder: of the graph so far.
        file: the operator as the file has it.
        inputs: names of values, `ABSENT` for an absent one.
        names: of the tensors that it makes.
        dtypes: of these, as the file says.
        place: for messages.
        quantizations: of the inputs, None where numbers are themselves.
        makes: of what it makes, the same.
    """

    builder: Builder
    file: FileOperator
    inputs: tuple[str, ...]
    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    place: str
    quantizations: tuple[FileQuantization | None, ...] = ()
    makes: tuple[FileQuantization | None, ...] = ()

    def has(self, index: int) -> bool:
        """Whether that input is there."""
        return index < len(self.inputs) and self.inputs[index] != ABSENT

    def input(self, index: int) -> str:
        """Name of the value of that input; ModelError where it is missing."""
        if not self.has(index):
            raise self.error(f"input {index} is missing", "Convert the model again.")
        return self.inputs[index]

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """Of that input."""
        return self.builder.tensor(self.input(index)).shape

    def image(self) -> tuple[int, ...]:
        """Shape of the first input, which must be NHWC."""
        if len(self.shape()) != 4:
            raise self.error(f"its input has the shape {self.shape()}, not NHWC", "Reshape it.")
        return self.shape()

    def constant(self, index: int) -> Array:
        """Value of an input that must be known before the model runs."""
        name = self.input(index)
        if name not in self.builder.constants:
            raise self.error(
                f"input {index}, {name}, is computed when the model runs, but it must be a constant",
                "Convert the model with fixed shapes.",
            )
        return self.builder.constants[name]

    def numbers(self, index: int) -> list[int]:
        """Of a constant input of integers, flat."""
        array = self.constant(index)
        if array.dtype.kind not in "iu":
            raise self.error(f"input {index} is {array.dtype}, not integers", "Convert it again.")
        return [int(each) for each in array.ravel()]

    def axis(self, axis: int, rank: int) -> int:
        """The same axis counted from the front; ModelError where there is none."""
        if not -rank <= axis < rank:
            raise self.error(f"it has no axis {axis}: its rank is {rank}", "Convert it again.")
        return axis % rank

    def options(self, name: str) -> Any:
        """Return the table of options, which must be of that class of the tflite package."""
        return self.file.options(name)

    def node(self, op: str, *inputs: str, dtype: str | None = None, **attributes: Any) -> str:
        """Add a node to the graph; what has constant inputs alone becomes a constant."""
        made = self.builder.node(
            op, inputs, self.names[0] if self.names else "", self.place, dtype, **attributes
        )
        return settled(self.builder, made)

    def add_constant(self, array: Array, name: str = "") -> str:
        """Add a constant to the graph."""
        return self.builder.constant(name or f"{self.names[0]}/constant", array)

    def scalar(self, number: float, like: str) -> str:
        """Add a constant of the dtype of the value ``like``."""
        return self.add_constant(np.asarray(number, self.builder.tensor(like).dtype))

    def activate(self, value: str, code: int) -> str:
        """Apply ``fused_activation_function`` to a value."""
        if code == _RELU_N1_TO_1:
            return self.node("clip", value, low=-1.0, high=1.0)
        if code not in _ACTIVATIONS:
            raise self.error(f"the fused activation {code} is not supported", "Split it off.")
        name = _ACTIVATIONS[code]
        return value if name is None else self.node(name, value)

    def fused(self, code: int) -> tuple[str | None, int]:
        """The part of an activation that a convolution applies itself, and the code of the rest."""
        if _ACTIVATIONS.get(code, "clip") in _FUSED:
            return _ACTIVATIONS[code], 0
        return None, code

    def error(self, what: str, remedy: str) -> ModelError:
        """Say what is wrong here, and what to do about it."""
        return ModelError(f"{self.place}: {what}. {remedy}")


# Reads an operator, and returns the names of what it makes: in the file's order, or the only one.
Read = Callable[[Operation], str | Sequence[str]]


def same_or_valid(
    operation: Operation,
    padding: int,
    window: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int] = (1, 1),
) -> tuple[int, int, int, int]:
    """Pads (top, bottom, left, right) of ``Padding`` SAME, 0, or VALID, 1."""
    _, height, width, _ = operation.image()
    if min(*window, *strides, *dilations) < 1:
        raise operation.error(
            f"window {window}, strides {strides} and dilations {dilations} must be positive",
            "Convert the model again.",
        )
    if padding == 1:
        return 0, 0, 0, 0
    return (
        *same_pads(height, window[0], strides[0], dilations[0]),
        *same_pads(width, window[1], strides[1], dilations[1]),
    )
