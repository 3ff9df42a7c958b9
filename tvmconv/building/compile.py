"""Functions to an executable, for a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import tvm
from tvm import tirx

from tvmconv.building.cuda import compiler as cuda_compiler
from tvmconv.errors import BuildError, TvmconvError
from tvmconv.lowering import cpu
from tvmconv.lowering.cuda import passes


def compile_functions(functions: Mapping[str, tirx.PrimFunc], target: Mapping[str, Any]) -> Any:
    """Compile functions under their names for one target; returns TVM's executable.

    Raises BuildError with the names when TVM cannot compile them.
    """
    mod = tvm.IRModule(
        {name: func.with_attr("global_symbol", name) for name, func in functions.items()}
    )
    on_gpu = target["kind"] == "cuda"
    device_code = cuda_compiler.compiling(str(target["arch"])) if on_gpu else nullcontext()
    pipeline = passes.PIPELINE if on_gpu else cpu.PIPELINE
    try:
        with device_code:
            return tvm.compile(mod, target=tvm.target.Target(dict(target)), tir_pipeline=pipeline)
    except TvmconvError:
        raise
    except Exception as error:
        first, *others = functions
        names = f"{first} and {len(others)} more" if others else first
        raise BuildError(f"TVM could not compile {names} for {dict(target)}: {error}") from error
