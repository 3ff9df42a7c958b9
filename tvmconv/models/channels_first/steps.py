"""Values whose axes lie in another order than the model says, and how they are brought into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np

from tvmconv.errors import ModelError
from tvmconv.models.constants import settled
from tvmconv.models.graph import ABSENT, Array, Builder
from tvmconv.models.operators import BINARY, COMPARISONS, broadcast

NHWC: Final = (0, 2, 3, 1)
# Of constants alone these stay nodes: a damaged file could ask for hours of NumPy.
_COSTLY: Final = (
    "conv2d", "depthwise_conv2d", "conv2d_transpose", "dense", "matmul", "max_pool2d", "average_pool2d",
    "resize",
)  # fmt: skip
_ONE_DTYPE: Final = frozenset((*BINARY, *COMPARISONS, *_COSTLY, "concat"))


@dataclass(frozen=True)
class Value:
    """A value of the model.

    Attributes:
        name: of the graph's value.
        order: for each axis of the graph's value, which axis of the model it is: (0, 2, 3, 1) where the
            model has NCHW and the graph NHWC.
    """

    name: str
    order: tuple[int, ...]

    def place(self, axis: int) -> int:
        """Which axis of the graph's value the model's ``axis`` is."""
        return self.order.index(axis)


def identity(rank: int) -> tuple[int, ...]:
    """Return the model's own order."""
    return tuple(range(rank))


@dataclass(frozen=True)
class Steps:
    """Adds to a graph what one operator of the model computes.

    Attributes:
        builder: of the graph.
        place: of the operator, for messages.
        name: that the values get, with numbers behind.
    """

    builder: Builder
    place: str
    name: str

    def error(self, what: str, remedy: str) -> ModelError:
        """Say what is wrong here, and what to do about it."""
        return ModelError(f"{self.place}: {what}. {remedy}")

    def shape(self, value: Value) -> tuple[int, ...]:
        """Of a value, as the model has it."""
        shape = self.builder.tensor(value.name).shape
        return tuple(shape[value.place(axis)] for axis in range(len(shape)))

    def dtype(self, value: Value) -> str:
        """Of a value."""
        return self.builder.tensor(value.name).dtype

    def axis(self, axis: int, rank: int) -> int:
        """The same axis counted from the front; ModelError where there is none."""
        if not -rank <= axis < rank:
            raise self.error(f"it has no axis {axis}: its rank is {rank}", "Convert it again.")
        return axis % rank

    def known(self, value: Value) -> Array | None:
        """The value as the model has it, where it is a constant."""
        array = self.builder.constants.get(value.name)
        if array is None:
            return None
        return np.transpose(array, [value.place(axis) for axis in range(array.ndim)])

    def constant(self, array: Array) -> Value:
        """Add a constant."""
        name = self.builder.constant(f"{self.name}/constant", np.asarray(array, order="C"))
        return Value(name, identity(array.ndim))

    def scalar(self, number: float, like: Value) -> Value:
        """Add a constant number of the dtype of ``like``."""
        return self.constant(np.full((), number, self.dtype(like)))

    def node(self, op: str, *inputs: str, dtype: str | None = None, **attributes: Any) -> str:
        """Add a node by its plain inputs; of constants alone it becomes a constant."""
        self._check_dtypes(op, inputs)
        made = self.builder.node(op, inputs, self.name, self.place, dtype, **attributes)
        return made if op in _COSTLY else settled(self.builder, made)

    def _check_dtypes(self, op: str, inputs: Sequence[str]) -> None:
        found = {self.builder.tensor(name).dtype for name in inputs if name != ABSENT}
        if op in _ONE_DTYPE and len(found) > 1:
            raise self.error(f"it mixes {' and '.join(sorted(found))}", "Cast to one dtype.")
        if op in _COSTLY[:4] and np.dtype(min(found)).kind != "f":
            raise self.error(f"it has weights of {min(found)}", "Export it with floats.")

    def bias(self, value: Value | None, channels: int) -> str:
        """Name of a vector of so many elements, or of none; ModelError for another shape."""
        if value is None:
            return ABSENT
        if self.shape(value) != (channels,):
            raise self.error(
                f"its bias has the shape {self.shape(value)}, but it makes {channels} channels",
                "Export the model again.",
            )
        return value.name

    def plain(self, value: Value) -> str:
        """Name of the value in the model's own order."""
        return self.arranged(value, identity(len(value.order)))

    def image(self, value: Value) -> str:
        """Name of the value in NHWC; ModelError unless the model has a rank of 4."""
        if len(value.order) != 4:
            raise self.error(
                f"its input has the shape {self.shape(value)}, not [batch, channels, height, width]",
                "Only operators on images are supported.",
            )
        return self.arranged(value, NHWC)

    def arranged(self, value: Value, order: tuple[int, ...]) -> str:
        """Name of the value in that order: a transpose, if more than axes of one element move."""
        if value.order == order:
            return value.name
        permutation = tuple(value.place(axis) for axis in order)
        shape = self.builder.tensor(value.name).shape
        moved = [axis for axis in permutation if shape[axis] != 1]
        if moved == sorted(moved):
            return self.node(
                "reshape", value.name, shape=tuple(shape[axis] for axis in permutation)
            )
        return self.node("transpose", value.name, permutation=permutation)

    def widened(self, value: Value, rank: int) -> Value:
        """The value with axes of one element in front."""
        extra = rank - len(value.order)
        if extra <= 0:
            return value
        shape = self.builder.tensor(value.name).shape
        made = self.node("reshape", value.name, shape=(1,) * extra + shape)
        return Value(made, wide_order(value, rank))

    def common(self, values: Sequence[Value]) -> tuple[tuple[int, ...], list[str]]:
        """An order for values that are broadcast against each other, and their names in it.

        It is that of the largest value, of equal ones of one that is not in the model's order, so that what
        is computed from images stays NHWC.
        """
        rank = max(len(value.order) for value in values)

        def weight(value: Value) -> tuple[bool, int, bool]:
            shape = self.builder.tensor(value.name).shape
            constant = value.name in self.builder.constants
            return not constant, prod(shape), value.order != identity(len(shape))

        order = wide_order(max(values, key=weight), rank)
        names = []
        for value in values:
            one = prod(self.builder.tensor(value.name).shape) == 1
            if not one and wide_order(value, rank) != order:
                names.append(self.arranged(self.widened(value, rank), order))
            else:
                names.append(value.name)
        return order, names

    def pointwise(self, op: str, *values: Value, **attributes: Any) -> Value:
        """Element by element, of one value or of several that are broadcast."""
        shapes = [self.shape(value) for value in values]
        order, names = self.common(values)
        made = self.node(op, *names, **attributes)
        if self.builder.tensor(made).shape != tuple(broadcast(*shapes)[axis] for axis in order):
            raise ValueError(f"{shapes} do not broadcast against each other")
        return Value(made, order)


def wide_order(value: Value, rank: int) -> tuple[int, ...]:
    """Order of a value that has got axes of one element in front."""
    extra = rank - len(value.order)
    return identity(extra) + tuple(axis + extra for axis in value.order)
