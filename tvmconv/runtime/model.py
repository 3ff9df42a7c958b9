"""A compiled model as a Python callable: ``y = model(x)``."""

from __future__ import annotations

import dataclasses
import mmap
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmconv.bundle import manifest as bundle
from tvmconv.bundle.model_entries import TensorEntry
from tvmconv.problem.rules import ALIGNMENT
from tvmconv.runtime import arrays, engine, pools, tensors
from tvmconv.runtime.in_process import InProcess

if TYPE_CHECKING:
    from concurrent.futures import Executor


# What one running call has for itself: structs of its inputs and outputs, and the call, with its arena.
_Frame = tuple[list[arrays.DLTensor], Callable[[], object]]


class Model(InProcess):
    """A compiled model; `tvmconv.load` makes it. Calls may be made from several threads at once.

    Attributes:
        path: the directory that it was loaded from.
        manifest: everything that it says of itself.
        variant: the part of it that was chosen for this machine.
        threads: how many threads each call uses.
        inputs, outputs: name, shape and dtype of each, in the model's order.
        mapped: the opened library.

    """

    def __init__(
        self,
        path: Path,
        manifest: bundle.Manifest,
        variant: bundle.Variant,
        threads: int,
        kernels: engine.KernelLibrary,
        weights: bytes | mmap.mmap,
    ) -> None:
        if manifest.model is None or variant.program is None:
            raise ValueError(f"{path} holds kernels, no model")
        self.path = path
        self.manifest = manifest
        self.variant = variant
        self.threads = threads
        self.mapped = kernels
        self.inputs = manifest.model.inputs
        self.outputs = manifest.model.outputs
        self._inputs = [_argument(path, "input", each) for each in self.inputs]
        self._outputs = [_argument(path, "output", each) for each in self.outputs]
        self._program = variant.program
        self._function = kernels.function(variant.program.symbol)
        self._weights = _words(weights)
        self._frames: list[_Frame] = []
        self._images = _Images(threads)

    def __repr__(self) -> str:
        return (
            f"Model({str(self.path)!r}, {len(self._program.layers)} calls for "
            f"{self.variant.machine}, {self.threads} threads)"
        )

    @property
    def module(self) -> Any:
        """The opened library as a ``tvm_ffi.Module``."""
        return self.mapped.module

    def __call__(self, *values: object, out: object = None, **named: object) -> Any:
        """Compute the model's outputs.

        Args:
            *values: the inputs in the model's order: NumPy arrays, or CPU tensors of a framework with
                DLPack (torch, JAX, TensorFlow), taken without a copy. An array that is not
                C-contiguous, aligned and in native byte order is copied first.
            out: array to write to, of any strides; for several outputs a tuple of them. It may overlap
                the inputs.
            **named: inputs by name instead.

        Where every input and output of the model is one image (its first extent is 1), the first
        extents of all inputs may be N instead: images are computed one by one, or on as many threads
        as the model has, and the outputs stacked.

        Returns:
            The output, an array of the kind of the first input, 64-byte aligned; of several a tuple.
            ``out`` if it is given.

        Raises:
            ValueError: a wrong shape or device, or a read-only ``out``.
            TypeError: an input is missing or unknown, is not an array, or has another dtype.

        """
        given = self._given(values, named)
        batch = self._batch(given)
        if batch is not None:
            inputs, outputs = (
                [argument.stacked(batch) for argument in each]
                for each in (self._inputs, self._outputs)
            )
        else:
            inputs, outputs = self._inputs, self._outputs
        sources = [argument.readable(value) for argument, value in zip(inputs, given, strict=True)]
        results = self._results(out, outputs)
        targets = [
            _target(result, argument, sources)
            for argument, result in zip(outputs, results, strict=True)
        ]
        if batch is None:
            self._run(sources, targets, self.threads)
        else:
            self._run_images(batch, sources, targets)
        if out is None:
            made = [tensors.like(given[0] if given else None, target) for target in targets]
            return made[0] if len(made) == 1 else tuple(made)
        for result, target in zip(results, targets, strict=True):
            if result is not target and result is not None:
                np.copyto(result, target, casting="equiv")
        return out

    def _given(self, values: Sequence[object], named: dict[str, object]) -> list[object]:
        """Return the inputs in the model's order."""
        names = [each.name for each in self.inputs]
        allowed = ", ".join(f"{e.name} {e.shape} {e.dtype}" for e in self.inputs) or "none"
        if len(values) > len(names):
            raise TypeError(
                f"{self.path.name} takes {len(names)} inputs, {len(values)} were given: {allowed}"
            )
        found = dict(zip(names, values, strict=False))
        for name, value in named.items():
            if name not in names or name in found:
                what = "twice" if name in found else "no input"
                raise TypeError(f"{name} is {what} of {self.path.name}, which takes: {allowed}")
            found[name] = value
        missing = [name for name in names if name not in found]
        if missing:
            raise TypeError(f"{self.path.name} lacks the input {missing[0]}: it takes {allowed}")
        return [found[name] for name in names]

    def _batch(self, given: Sequence[object]) -> int | None:
        """Return how many images are given to a model of one, None where it is called as it is."""
        shapes = [tuple(getattr(value, "shape", ())) for value in given]
        own = [each.shape for each in self.inputs]
        if shapes == own or not shapes or not all(shapes):
            return None
        every = [*own, *(each.shape for each in self.outputs)]
        if any(shape[:1] != (1,) for shape in every):
            return None
        images = {shape[0] for shape in shapes}
        rests = zip(shapes, own, strict=True)
        if len(images) > 1 or any(shape[1:] != one[1:] for shape, one in rests):
            return None
        return int(images.pop())

    def _results(
        self, out: object, arguments: Sequence[_ModelArgument]
    ) -> list[arrays.Array | None]:
        if out is None:
            return [None] * len(arguments)
        parts = list(out) if isinstance(out, tuple | list) else [out]
        if len(parts) != len(arguments):
            raise TypeError(
                f"out of {self.path.name} must be {len(arguments)} arrays, one an output, "
                f"{len(parts)} were given"
            )
        return [arg.writable(part) for arg, part in zip(arguments, parts, strict=True)]

    def _run(
        self, sources: Sequence[arrays.Array], targets: Sequence[arrays.Array], threads: int
    ) -> None:
        addresses = [arrays.data_address(each) for each in (*sources, *targets)]
        self._run_at(addresses, threads)

    def _run_at(self, addresses: Sequence[int], threads: int) -> None:
        # Atomic: no two calls ever have the same frame.
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = self._new_frame()
        structs, call = frame
        for struct, address in zip(structs, addresses, strict=True):
            struct.data = address
        pools.call(threads, call)
        self._frames.append(frame)

    def _run_images(
        self, batch: int, sources: Sequence[arrays.Array], targets: Sequence[arrays.Array]
    ) -> None:
        bases = [arrays.data_address(each) for each in (*sources, *targets)]
        steps = [each.nbytes // max(batch, 1) for each in (*sources, *targets)]

        def image(number: int) -> None:
            places = [base + number * step for base, step in zip(bases, steps, strict=True)]
            self._run_at(places, 1)

        self._images.run(image, batch)

    def _new_frame(self) -> _Frame:
        inputs = [argument.struct() for argument in self._inputs]
        outputs = [argument.struct() for argument in self._outputs]
        arena = arrays.empty_aligned((max(self._program.arena_bytes, ALIGNMENT),), np.uint8)
        fixed = [arrays.array_tensor(each) for each in (self._weights, arena)]
        call = self._function.prepared([*inputs, *fixed, *outputs])
        return [*inputs, *outputs], call


class _Images:
    """Threads that compute whole images, started when there is something for them."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._executor: tuple[int, Executor] | None = None

    def run(self, image: Callable[[int], None], count: int) -> None:
        """Call ``image`` for 0 ... count - 1."""
        if self._threads == 1 or count == 1:
            for number in range(count):
                image(number)
            return
        with self._lock:
            process = os.getpid()  # a fork leaves the threads behind
            if self._executor is None or self._executor[0] != process:
                from concurrent.futures import ThreadPoolExecutor

                pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tvmconv")
                self._executor = (process, pool)
            executor = self._executor[1]
        for _ in executor.map(image, range(count)):
            pass


@dataclasses.dataclass(frozen=True)
class _ModelArgument(arrays.Argument):
    """An input or output of a model."""

    def stacked(self, batch: int) -> _ModelArgument:
        """The same of ``batch`` images."""
        return dataclasses.replace(self, shape=(batch, *self.shape[1:]))

    def struct(self) -> arrays.DLTensor:
        """A struct whose address a call sets."""
        return arrays.tensor(self.shape or (1,), tensors.numpy_dtype(self.dtype))

    def empty(self) -> arrays.Array:
        """An array for it, not initialised."""
        return arrays.empty_aligned(self.shape, tensors.numpy_dtype(self.dtype))


def _argument(path: Path, what: str, entry: TensorEntry) -> _ModelArgument:
    return _ModelArgument(
        f"{what} {entry.name}",
        path.name,
        entry.shape,
        entry.dtype,
        True,
        "compile the model for that shape: tvmconv compile MODEL --input-shape "
        f"{entry.name}=N,H,W,C",
    )


def _target(
    result: arrays.Array | None, argument: _ModelArgument, sources: Sequence[arrays.Array]
) -> arrays.Array:
    """Return where an output is computed: where it is to be if that is possible, else new memory."""
    if result is None or any(np.may_share_memory(result, source) for source in sources):
        return argument.empty()
    direct = arrays.address(result, argument.shape, result.dtype, arrays.WRITABLE)
    return result if direct else argument.empty()


def _words(weights: bytes | mmap.mmap) -> arrays.Array:
    """The packed weights as an array, which a model without any has too."""
    if len(weights) == 0:
        return arrays.empty_aligned((ALIGNMENT,), np.uint8)
    words: arrays.Array = np.frombuffer(weights, np.uint8)
    words.flags.writeable = False
    return words
