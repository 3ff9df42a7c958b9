"""One message for all that is wrong with a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tvmconv.errors import ModelError

_MOST: Final = 10  # problems that one message lists


def refuse(name: str, problems: Sequence[str]) -> None:
    """Raise ModelError if there are problems of the model ``name``; it lists up to ten of them."""
    if not problems:
        return
    more = f"\n  and {len(problems) - _MOST} more" if len(problems) > _MOST else ""
    listed = "".join(f"\n  {problem}" for problem in problems[:_MOST])
    raise ModelError(
        f"{name} cannot be read:{listed}{more}\nChange these in the model and convert it again."
    )
