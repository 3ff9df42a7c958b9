"""On an emulated board: calls a whole model between marks that a plugin counts by, and keeps its outputs.

    python count_models_on_board.py NAME FOLDER     started by scripts/model_cost.py, which fills the folder

NAME is tvmconv or litert. FOLDER has ``inputs.npz``, ``model.tflite`` and ``model.tvmconv``, and gets
``NAME.npz``.
"""

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from count_on_board import MARK, SERIES

_system_call = ctypes.CDLL(None).syscall
Call = Callable[[], list[np.ndarray]]


def ours(folder: Path, inputs: list[np.ndarray]) -> Call:
    import tvmconv

    model = tvmconv.load(folder / "model.tvmconv", threads=1)
    out = tuple(np.empty(each.shape, each.dtype) for each in model.outputs)

    def call() -> list[np.ndarray]:
        model(*inputs, out=out)
        return list(out)

    return call


def litert(folder: Path, inputs: list[np.ndarray]) -> Call:
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(str(folder / "model.tflite"), num_threads=1)
    model.allocate_tensors()
    for each, array in zip(model.get_input_details(), inputs, strict=True):
        model.set_tensor(each["index"], array)

    def call() -> list[np.ndarray]:
        model.invoke()
        return [model.get_tensor(each["index"]) for each in model.get_output_details()]

    return call


def main(name: str, folder: Path) -> None:
    with np.load(folder / "inputs.npz") as file:
        inputs = [file[key] for key in file.files]
    call = {"tvmconv": ours, "litert": litert}[name](folder, inputs)
    np.savez(folder / f"{name}.npz", *call())
    gc.collect()
    gc.disable()
    _system_call(MARK, 0)
    for series in SERIES:
        for _ in range(series):
            call()
        _system_call(MARK, 0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
