"""Times a fresh process that loads a compiled model and calls it once, beside LiteRT's with the same model.

::

    tvmconv compile face_landmark.tflite --output face.tvmconv
    python scripts/cold_start.py face.tvmconv face_landmark.tflite --runs 15

Each run starts one process of each kind, in turn. Prints the whole life of the process as the shell sees it,
minimum and median, the least CPU time of all its threads, and its largest resident memory. On a busy machine
the median means little, and CPU time more than the clock.
LiteRT (``pip install ai-edge-litert``) is left out where no ``.tflite`` file is named.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

_OURS = """
import sys, numpy, tvmconv
model = tvmconv.load(sys.argv[1], threads=1)
model(*[numpy.zeros(each.shape, each.dtype) for each in model.inputs])
"""
_LITERT = """
import sys, numpy
from ai_edge_litert.interpreter import Interpreter
model = Interpreter(sys.argv[1], num_threads=1)
model.allocate_tensors()
for each in model.get_input_details():
    model.set_tensor(each["index"], numpy.zeros(each["shape"], each["dtype"]))
model.invoke()
[model.get_tensor(each["index"]) for each in model.get_output_details()]
"""
_PARTS = {"python": "pass", "numpy": "import numpy", "tvm_ffi": "import tvm_ffi"}


def _run(code: str, argument: str) -> tuple[float, float, float]:
    """Return milliseconds, milliseconds of CPU time, and MiB of one process."""
    # As after `pip install`: without compiled modules, Python compiles ours from source each time.
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-c", code, argument], env=environment, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"a process failed; run: {sys.executable} -c {code!r} {argument}")
    cpu = usage.ru_utime + usage.ru_stime
    return 1e3 * seconds, 1e3 * cpu, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("compiled", type=Path, help="a directory that tvmconv compile made")
    parser.add_argument("tflite", type=Path, nargs="?", help="the model that it was made from")
    parser.add_argument("--runs", type=int, default=15, help="processes of each kind (15)")
    arguments = parser.parse_args()
    jobs = {name: (code, "") for name, code in _PARTS.items()}
    jobs["tvmconv"] = _OURS, str(arguments.compiled.resolve())
    if arguments.tflite is not None:
        jobs["litert"] = _LITERT, str(arguments.tflite.resolve())
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in jobs}
    for _ in range(arguments.runs):
        for name, job in jobs.items():
            found[name].append(_run(*job))
    for name, runs in found.items():
        times, cpu, memory = zip(*runs, strict=True)
        print(
            f"{name:8} min {min(times):6.1f} ms, median {statistics.median(times):6.1f} ms, "
            f"CPU {min(cpu):6.1f} ms, {min(memory):5.1f} MiB"
        )


if __name__ == "__main__":
    main()
