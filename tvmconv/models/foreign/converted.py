"""Runtimes with a format of their own, for which the file is converted first, in a process of its own.

MNN's converter is in its wheel. It is called beneath MNN's own command, which installs a package and reports
to a server. ncnn and PyTorch open what pnnx writes: of PyTorch that is a module as Python code.
"""

from __future__ import annotations

import importlib.util
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tvmconv import writing
from tvmconv.errors import ModelError
from tvmconv.models.foreign.opened import Opened, Request

_CONVERTING_SECONDS = 200.0
_MNN_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"
_MNN_FORMATS = {".tflite": "TFLITE", ".onnx": "ONNX"}
# What a converter's line holds that says why it failed.
_REASON = re.compile(r"not.support|fail|error|invalid", re.IGNORECASE)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST_REASON = 200


def mnn(wanted: Request) -> Opened:
    """MNN's module on the CPU, in float32."""
    from MNN import expr, nn

    suffix = wanted.model.suffix.lower()
    settings = {"backend": "CPU", "numThread": wanted.threads, "precision": "high"}
    runtime = nn.create_runtime_manager((settings,))
    with writing.scratch("tvmconv-mnn-") as folder:
        file = folder / "model.mnn"
        arguments = ["-f", _MNN_FORMATS[suffix], "--modelFile", str(wanted.model.resolve())]
        arguments += ["--MNNModel", str(file), "--bizCode", "tvmconv"]
        _convert("MNN's converter", [sys.executable, "-c", _MNN_CONVERT, *arguments], file, wanted)
        module = nn.load_module_from_file(
            str(file), list(wanted.inputs), list(wanted.outputs), runtime_manager=runtime
        )
    layout = expr.NHWC if suffix == ".tflite" else expr.NCHW
    arrays = [np.ascontiguousarray(array) for array in wanted.inputs.values()]
    given = [expr.const(array, list(array.shape), layout) for array in arrays]
    last: list[Any] = []

    def call() -> None:
        last[:] = module.forward(given)

    return Opened(call, lambda: [np.array(each.read()) for each in last])


def ncnn_net(wanted: Request) -> Opened:
    """The net of ncnn on the CPU, with its float16 and bfloat16 shortcuts off."""
    import ncnn

    for name, array in wanted.inputs.items():
        if array.shape[:1] != (1,) or not 2 <= array.ndim <= 4:
            raise ModelError(
                f"ncnn computes one image at a time, and {name} has the shape {array.shape}"
            )
    net = ncnn.Net()
    net.opt.num_threads = wanted.threads
    for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "bf16_packed"):
        if hasattr(net.opt, f"use_{name}"):
            setattr(net.opt, f"use_{name}", False)
    with writing.scratch("tvmconv-ncnn-") as folder:
        _pnnx(wanted, folder, "model.ncnn.param")
        failed = net.load_param(str(folder / "model.ncnn.param"))
        if failed or net.load_model(str(folder / "model.ncnn.bin")):
            raise ModelError(f"ncnn cannot load what pnnx made of {wanted.model.name}")
    # A Mat of an array borrows its memory; there is no batch in it.
    sources = [ncnn.Mat(np.ascontiguousarray(a[0])).clone() for a in wanted.inputs.values()]
    outputs = [f"out{number}" for number in range(len(wanted.outputs))]
    last: list[Any] = []

    def call() -> None:
        extractor = net.create_extractor()
        for number, source in enumerate(sources):
            extractor.input(f"in{number}", source)
        # A result lives in its extractor's memory.
        last[:] = [extractor, *(extractor.extract(name)[1] for name in outputs)]

    return Opened(call, lambda: [np.array(each)[np.newaxis] for each in last[1:]])


def pytorch(wanted: Request) -> Opened:
    """PyTorch in inference mode, layer by layer, as a user's module runs."""
    import torch

    torch.set_num_threads(wanted.threads)
    with writing.scratch("tvmconv-torch-") as folder:
        _pnnx(wanted, folder, "model_pnnx.py")
        spec = importlib.util.spec_from_file_location("model_pnnx", folder / "model_pnnx.py")
        if spec is None or spec.loader is None:
            raise ModelError(f"pnnx made no module of {wanted.model.name}")
        code = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(code)
        network = code.Model().float().eval()
    tensors = [torch.from_numpy(np.array(each)) for each in wanted.inputs.values()]
    last: list[Any] = []

    def call() -> None:
        with torch.inference_mode():
            made = network(*tensors)
        last[:] = made if isinstance(made, (tuple, list)) else [made]

    return Opened(call, lambda: [each.numpy() for each in last])


def _pnnx(wanted: Request, folder: Path, made: str) -> None:
    """Convert the model into ``folder``: ``made`` is one of the files that are written there."""
    found = importlib.util.find_spec("pnnx")
    places = (found.submodule_search_locations if found else None) or ["."]
    copy = folder / f"model{wanted.model.suffix.lower()}"  # what pnnx writes lies beside its input
    copy.symlink_to(wanted.model.resolve())
    shapes = ",".join(
        f"[{','.join(map(str, array.shape))}]{array.dtype.kind}{8 * array.dtype.itemsize}"
        for array in wanted.inputs.values()
    )
    # The module names the file of its weights as it is named here.
    weights = f"pnnxbin={folder / 'model.pnnx.bin'}"
    command = [str(Path(places[0]) / "pnnx"), copy.name, f"inputshape={shapes}", "fp16=0", weights]
    _convert("pnnx", command, folder / made, wanted)


def _convert(what: str, command: Sequence[str], made: Path, wanted: Request) -> None:
    """Run a converter where it is to make a file; ModelError with its reasons where it does not."""
    model = wanted.model.name
    try:
        done = subprocess.run(
            command,
            cwd=made.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_CONVERTING_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"{what} took longer than {_CONVERTING_SECONDS:.0f} s for {model}"
        ) from error
    if done.returncode == 0 and made.exists():
        return
    lines = [
        _COLOURS.sub("", line).strip() for line in done.stdout.decode(errors="replace").splitlines()
    ]
    reasons = [line for line in lines if _REASON.search(line)] or lines[-1:]
    ended = f"exit {done.returncode}"
    if done.returncode < 0:
        ended = signal.Signals(-done.returncode).name
    said = "; ".join(reasons)[:_LONGEST_REASON]
    raise ModelError(f"{what} cannot convert {model} ({ended}): {said}")
