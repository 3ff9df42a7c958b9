"""Instructions that an ARM core executes for one inference of a model, ours beside LiteRT's.

::

    python scripts/model_cost.py face_landmark.tflite --machine raspberry-pi-4

Both run on the emulated board (scripts/emulated_board), one thread, in processes of their own; what two calls
take less what one takes is counted, as scripts/peers_cost.py does for layers. Outputs are compared.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import peers_cost

import tvmconv
from tvmconv.bundle import manifest
from tvmconv.errors import MissingToolError
from tvmconv.models import comparing

HERE = Path(__file__).resolve().parent
NAMES = {"tvmconv": [], "litert": ["--with=ai-edge-litert"]}  # and what the board needs for it


def counted(name: str, cpu: str, folder: Path, plugin: Path) -> peers_cost.Counted | str:
    marks = folder / f"{name}.marks"
    done = subprocess.run(
        [sys.executable, str(HERE / "emulated_board.py"), "--cpu", cpu, *NAMES[name], "--", "python",
         str(HERE / "count_models_on_board.py"), name, str(folder)],
        env={
            **os.environ, "QEMU_PLUGIN": f"file={plugin},out={marks}", "OPENBLAS_NUM_THREADS": "1",
        },
        stderr=subprocess.PIPE, text=True, timeout=peers_cost.TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise MissingToolError(f"{name} cannot be counted on an emulated {cpu}: {last}")
    lines = [list(map(int, line.split()))[1:] for line in marks.read_text().splitlines()]
    return peers_cost.difference(lines, 1)


def compare(file: Path, machine: str) -> None:
    cpu = peers_cost.cpu_of(machine)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        plugin = peers_cost.compiled_plugin(folder)
        (folder / "model.tflite").write_bytes(file.read_bytes())
        path = tvmconv.compile(file, machine, folder / "model.tvmconv")
        entries = manifest.read_manifest(path).model
        if entries is None:
            raise ValueError(f"{path} holds kernels, no model")
        inputs = comparing.random_inputs(entries.inputs, seed=0)
        np.savez(folder / "inputs.npz", *inputs.values())
        found = {name: counted(name, cpu, folder, plugin) for name in NAMES}
        made, right = (list(np.load(folder / f"{name}.npz").values()) for name in NAMES)
        differences = [
            comparing.difference(entry.name, one, other)
            for entry, one, other in zip(entries.outputs, made, right, strict=True)
        ]
    for name, count in found.items():
        if isinstance(count, str):
            print(f"{file.stem}, {cpu}: no count of {name}: {count}")
            continue
        share = 100 * count.multiply_adds / count.instructions
        print(
            f"{file.stem}, {cpu}: {name} {count.instructions / 1e6:.2f} M instructions, "
            f"{share:.1f} % of them vector multiply-adds"
        )
    for each in differences:
        word = "" if each.passes else ", WRONG"
        print(f"  {each.name}: {each.relative:.1e} of the largest value apart{word}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+", help=".tflite files")
    parser.add_argument("--machine", default="raspberry-pi-4", help="a board (raspberry-pi-4)")
    arguments = parser.parse_args()
    for file in arguments.models:
        compare(file, arguments.machine)


if __name__ == "__main__":
    main()
