"""From a program of `torch.export` to a graph."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Final

import torch

from tvmconv.errors import ModelError
from tvmconv.models.channels_first.steps import Steps, Value, identity
from tvmconv.models.graph import Builder, Graph
from tvmconv.models.pytorch.arithmetic import ARITHMETIC
from tvmconv.models.pytorch.axes import AXES
from tvmconv.models.pytorch.call import Call
from tvmconv.models.pytorch.images import IMAGES
from tvmconv.models.pytorch.shapes import SHAPES
from tvmconv.models.refusing import refuse

_READS: Final = {**ARITHMETIC, **AXES, **IMAGES, **SHAPES}
# Their results may lie in the memory of what they are given.
_VIEWS: Final = {
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "t", "mT",
    "chunk", "split", "split_with_sizes", "unbind", "slice", "select", "expand", "contiguous", "detach",
    "alias", "getitem", "to", "dropout",
}  # fmt: skip
# Make tensors of numbers alone, which are constants.
_FACTORIES: Final = {"ones", "zeros", "full", "arange", "linspace", "eye", "scalar_tensor"}
_DTYPES: Final = (
    "float32", "float16", "float64", "int8", "int16", "int32", "int64", "uint8", "bool",
)  # fmt: skip


def read_module(module: Any, example_inputs: Sequence[Any] | None = None) -> Graph:
    """Read a program of `torch.export`, or a module, which is exported with ``example_inputs``.

    Raises:
        ModelError: it cannot be exported, or has what is not supported: up to ten of those, with places.
    """
    if isinstance(module, torch.export.ExportedProgram):
        return _Reader(module, "exported program").read()
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"{type(module).__name__} is no model: give a path, an ExportedProgram or a torch.nn.Module"
        )
    name = type(module).__name__
    if example_inputs is None:
        raise ModelError(
            f"{name}: a module is exported with example_inputs, a tuple of tensors of its inputs' shapes, "
            "but none are given"
        )
    if module.training:
        raise ModelError(f"{name} is in training mode. Call .eval() on it.")
    try:
        program = torch.export.export(module, tuple(example_inputs))
    except Exception as error:  # torch.export raises whatever the module's own code does
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"{name} cannot be exported by torch.export: {reason}") from error
    return _Reader(program, name).read()


class _Reader:
    def __init__(self, program: Any, name: str) -> None:
        self.program = program
        self.name = name
        self.builder = Builder(name)
        self.values: dict[str, Any] = {}  # name of a node -> a value or several
        self.lost: set[str] = set()
        self.problems: list[str] = []

    def read(self) -> Graph:
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "get_attr":
                self.problems.append(
                    f"{node.name}: an attribute that is no parameter is not supported"
                )
                self.lost.add(node.name)
        refuse(self.name, self.problems)
        changed = self.program.graph_signature.buffers_to_mutate
        if changed:
            raise ModelError(
                f"{self.name} changes its buffers {sorted(changed.values())}, which is not supported. Call "
                ".eval() on the module."
            )
        for name in self.program.graph_signature.user_outputs:
            value = self.values.get(name)
            if not isinstance(value, Value):
                raise ModelError(f"{self.name}: the output {name!r} is no tensor of the program")
            steps = Steps(self.builder, f"output {name!r}", name)
            self.builder.output(name, steps.plain(value))
        return self.builder.graph()

    def _placeholder(self, node: Any) -> None:
        signature, program = self.program.graph_signature, self.program
        for targets in (signature.inputs_to_parameters, signature.inputs_to_buffers):
            if node.name in targets:
                target = targets[node.name]
                found = program.state_dict.get(target, program.constants.get(target))
                self._constant(node.name, found)
                return
        if node.name in signature.inputs_to_lifted_tensor_constants:
            target = signature.inputs_to_lifted_tensor_constants[node.name]
            self._constant(node.name, program.constants[target])
            return
        example = node.meta.get("val")
        if not isinstance(example, torch.Tensor):
            if example is not None:
                self.problems.append(f"the input {node.name!r} is {example!r}, no tensor")
            self.lost.add(node.name)
            return
        shape, dtype = tuple(example.shape), str(example.dtype).removeprefix("torch.")
        if not all(type(extent) is int for extent in shape) or dtype not in _DTYPES:
            self.problems.append(
                f"the input {node.name!r} has the shape {shape} and dtype {dtype}. Export it with fixed "
                f"shapes, and one of {', '.join(_DTYPES)}."
            )
            self.lost.add(node.name)
            return
        self.values[node.name] = Value(
            self.builder.input(node.name, shape, dtype), identity(len(shape))
        )

    def _constant(self, name: str, tensor: Any) -> None:
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in _DTYPES:
            self.problems.append(f"the parameter {name!r} has the dtype {dtype}. Cast it.")
            self.lost.add(name)
            return
        array = tensor.detach().cpu().contiguous().numpy()
        self.values[name] = Value(self.builder.constant(name, array), identity(array.ndim))

    def _call(self, node: Any) -> None:
        kind, in_place = _kind(node)
        place = f"aten.{kind}, node {node.name!r}"
        if self.lost.intersection(each.name for each in node.all_input_nodes):
            self.lost.add(node.name)
            return
        if kind == "getitem":
            source, index = node.args
            self.values[node.name] = self.values[source.name][index]
            return
        if kind in _FACTORIES and not node.all_input_nodes:
            self._constant(node.name, node.target(*node.args, **node.kwargs))
            return
        read = _READS.get(kind)
        problem = None if read else f"{place}: the operator is not supported. Replace it."
        if read is not None:
            steps = Steps(self.builder, place, node.name)
            try:
                made = read(Call(steps, kind, self._arguments(node)))
            except ModelError as error:
                problem = str(error)
            except (IndexError, TypeError, ValueError, ArithmeticError, KeyError) as error:
                problem = f"{place}: it is used in a way that is not supported ({error})"
            else:
                self.values[node.name] = made
                problem = self._changed(node, place) if in_place else None
        if problem is not None:
            self.problems.append(problem)
            self.lost.add(node.name)

    def _changed(self, node: Any, place: str) -> str | None:
        """Let all names of the tensor that an operator changed in place be the result."""
        old, new = self.values[node.args[0].name], self.values[node.name]
        same = [each for each in self.program.graph.nodes if self.values.get(each.name) is old]
        if any(each.op == "placeholder" for each in same):
            return f"{place}: it changes an input or a parameter in place. Use it without inplace."
        readers = {user for each in same for user in each.users} - {node, *same}
        if any(map(_is_shared_view, same)) or any(map(self._is_read_later, readers)):
            return f"{place}: it changes views in place, or what has views. Use it without inplace."
        self.values.update({each.name: new for each in same})
        return None

    def _is_read_later(self, node: Any) -> bool:
        """Whether a node is a view, and something reads it, or a view of it, that is not read yet."""
        return _kind(node)[0] in _VIEWS and any(
            (user.name not in self.values and user.name not in self.lost)
            or self._is_read_later(user)
            for user in node.users
        )

    def _arguments(self, node: Any) -> dict[str, Any]:
        """All arguments of the schema by their names, with values for nodes."""
        found = {}
        for index, argument in enumerate(node.target._schema.arguments):
            if index < len(node.args):
                given = node.args[index]
            elif argument.name in node.kwargs:
                given = node.kwargs[argument.name]
            else:
                given = argument.default_value if argument.has_default_value() else None
            found[argument.name] = self._given(given)
        return found

    def _given(self, given: Any) -> Any:
        if isinstance(given, torch.fx.Node):
            return self.values[given.name]
        if isinstance(given, (list, tuple)):
            return [self._given(each) for each in given]
        return given


def _is_shared_view(node: Any) -> bool:
    """Whether a node is a view of a tensor that others read too."""
    return _kind(node)[0] in _VIEWS and any(
        len(each.users) > 1 or _is_shared_view(each) for each in node.all_input_nodes
    )


def _kind(node: Any) -> tuple[str, bool]:
    """Name of an operator without namespace and overload, and whether it changes its first argument."""
    if node.target is operator.getitem:
        return "getitem", False
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.name.startswith("aten::"):
        return str(node.target), False
    name = schema.name.removeprefix("aten::")
    in_place = name.endswith("_") and not name.endswith("__")
    return name.removesuffix("_") if in_place else name, in_place
