"""What compiled kernels and models have in common: they cannot leave their process."""

from __future__ import annotations

from typing import NoReturn


class InProcess:
    """Machine code that is open in this process, which it cannot leave; a copy of it is itself."""

    __slots__ = ("__weakref__",)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled: it holds machine code that is open in this process. "
            "Load the bundle again in the other process: pass its path there, and call tvmconv.load(path)"
        )

    def __copy__(self) -> InProcess:
        return self

    def __deepcopy__(self, _memo: object) -> InProcess:
        return self
