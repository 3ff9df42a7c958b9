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


def open_shape(name: str, shape: Sequence[int | None]) -> str:
    """Return what is wrong with an input whose extents are not all known, and how to give them."""
    known = tuple("?" if extent is None else extent for extent in shape)
    usual = ("1", *known[1:]) if known[0] == "?" else known  # a batch of one
    return (
        f"the input {name!r} has the shape ({', '.join(map(str, known))}), where ? is not known. Give "
        f"it all: input_shapes={{{name!r}: ({', '.join(map(str, usual))})}}, or --input-shape "
        f"{name}={','.join(map(str, usual))}, with numbers for every ?"
    )
