"""On an emulated board: makes a library's calls of each layer between marks that a plugin counts by.

    python count_on_board.py NAME FOLDER        started by scripts/peers_cost.py, which fills the folder

NAME is a library of tvmconv.measuring.peers, or tvmconv for the bundle in the folder. Every output is
compared with the float64 oracle. FOLDER/NAME.json gets, for each key, how many calls were marked as one, or
why there is no count.
"""

import ctypes
import functools
import gc
import importlib
import json
import sys
from pathlib import Path

import numpy as np

from tvmconv import runtime
from tvmconv.checking import oracle
from tvmconv.measuring.peers import contender, ours, xnnpack
from tvmconv.problem.spec import ConvSpec

MARK = 0x7C0DE  # as in count_instructions.c
_system_call = ctypes.CDLL(None).syscall
# Two series less one are a series, without what marking takes. The last one must agree with the one before
# them; the very first takes more: memory that is asked for.
SERIES = (1, 1, 2, 1)
# Of a small layer several calls are a series, because single calls vary by some thousand instructions.
SMALL, CALLS_IF_SMALL = 8_000_000, 8  # multiply-adds, calls


def prepared(
    name: str, folder: Path, number: int, spec: ConvSpec, arguments: dict
) -> contender.Prepared:
    if name == ours.NAME:
        return ours.prepare(bundle(folder), spec, **arguments)
    if name == xnnpack.NAME:  # converted where TensorFlow is
        numbers = np.load(folder / f"{number}.npy")
        return xnnpack.loaded(spec, (folder / f"{number}.tflite").read_bytes(), numbers, threads=1)
    library = importlib.import_module(f"tvmconv.measuring.peers.{name}")
    if spec.dtype not in library.DTYPES:
        raise contender.UnsupportedLayerError(f"{spec.dtype}: it is compared in {library.DTYPES}")
    return library.prepare(spec, **arguments, threads=1)


@functools.cache
def bundle(folder: Path) -> runtime.Library:
    return runtime.load(folder / "kernels.tvmconv", threads=1)


def main(name: str, folder: Path) -> None:
    outcomes: dict[str, int | str] = {}
    gc.disable()
    for number, key in enumerate((folder / "keys").read_text().split()):
        spec = ConvSpec.from_key(key)
        arguments = oracle.random_arguments(spec, seed=0)
        try:
            layer = prepared(name, folder, number, spec, arguments)
            contender.check(spec, arguments, layer, None if name == ours.NAME else name)
        except Exception as error:  # whatever the library raises is its reason
            outcomes[key] = f"{type(error).__name__}: {error}"
            continue
        calls = CALLS_IF_SMALL if spec.macs < SMALL else 1
        outcomes[key] = calls
        gc.collect()  # not while something is counted
        _system_call(MARK, number)
        for series in SERIES:
            for _ in range(series * calls):
                layer.call()
            _system_call(MARK, number)
        print(f"{name}: {key}", flush=True)
    (folder / f"{name}.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
