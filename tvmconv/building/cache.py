"""Where this package keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path

from tvmconv.errors import INSTALL_COMPILER, MissingToolError
from tvmconv.hardware import home

DIRECTORY_VARIABLE = "TVMCONV_CACHE_DIR"


def directory() -> Path:
    """Return the folder of everything cached: ``$TVMCONV_CACHE_DIR``, else the user's cache directory."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    if given:
        return Path(given)
    try:
        import platformdirs
    except ImportError as error:
        raise MissingToolError(
            "platformdirs, which knows where the cache belongs, is not installed. "
            f"To mend it: {INSTALL_COMPILER}, or set {DIRECTORY_VARIABLE}."
        ) from error
    home.ensure_cache()
    return platformdirs.user_cache_path("tvmconv")
