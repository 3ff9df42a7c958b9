"""TensorFlow-style convolutions, compiled and tuned for exactly your hardware with TVM.

Importing this package loads neither TVM nor NumPy; each name is loaded when it is first used, so a
deployed process pays for the runtime only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tvmconv.version import __version__

if TYPE_CHECKING:
    from tvmconv.building.builder import build
    from tvmconv.functional import conv2d, depthwise_conv2d
    from tvmconv.models.compile import compile
    from tvmconv.problem.spec import ConvSpec
    from tvmconv.runtime import load

__all__ = ["ConvSpec", "__version__", "build", "compile", "conv2d", "depthwise_conv2d", "load"]

_MODULES = {
    "ConvSpec": "tvmconv.problem.spec",
    "build": "tvmconv.building.builder",
    "compile": "tvmconv.models.compile",
    "conv2d": "tvmconv.functional",
    "depthwise_conv2d": "tvmconv.functional",
    "load": "tvmconv.runtime",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'tvmconv' has no attribute {name!r}; it has {__all__}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # the next access does not come here again
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
