"""A place for caches where there is no home directory: a user id without a passwd entry, as in OpenShift."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import warnings
from pathlib import Path

_CACHES = "XDG_CACHE_HOME"


def ensure_cache() -> None:
    """Set ``XDG_CACHE_HOME`` to a temporary folder if nothing else says where caches belong.

    TVM asks for the home directory when it is imported, and fails without. The folder is removed when this
    process ends; those that it starts use it too.
    """
    if os.environ.get(_CACHES):
        return
    try:
        Path.home()
    except RuntimeError:
        pass
    else:
        return
    folder = tempfile.mkdtemp(prefix="tvmconv-")
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    os.environ[_CACHES] = folder
    if not os.environ.get("TVMCONV_CACHE_DIR"):
        warnings.warn(
            f"user {os.getuid()} has no home directory, so kernels are kept in {folder} until this process "
            "ends and compiled anew by the next: set HOME, or TVMCONV_CACHE_DIR to a folder that stays",
            RuntimeWarning,
            stacklevel=2,
        )
