"""Operators that are computed by a function of their own, which no other joins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Final

from tvm import te

from tvmconv.hardware import Machine
from tvmconv.models.graph import Node, Tensor
from tvmconv.models.operators import REDUCTIONS
from tvmconv.models.rest import joining, loops, pools, products, reductions, resizing, turning

# From a node, shape and dtype of each of its inputs, and the machine: the scheduled function.
Maker = Callable[[Node, Sequence[Tensor], Machine], Any]


def copy(tensor: Tensor, machine: Machine) -> Any:
    """Return the function that copies a value."""
    shape = (max(prod(tensor.shape), 1),)
    x = te.placeholder(shape, tensor.dtype, name="x")
    schedule = loops.start([x, te.compute(shape, lambda i: x[i], name="out")])
    loops.apply_rule(schedule, machine, shape, tensor.dtype)
    return loops.finished(schedule)


MAKERS: Final[Mapping[str, Maker]] = {
    **dict.fromkeys(REDUCTIONS, reductions.reduction),
    **dict.fromkeys(("softmax", "log_softmax"), reductions.softmax),
    **dict.fromkeys(("max_pool2d", "average_pool2d"), pools.pool),
    "arg_max": reductions.arg_max,
    "resize": resizing.resize,
    "matmul": products.matmul,
    "concat": joining.concat,
    **dict.fromkeys(turning.TURNING, turning.turn),
}
