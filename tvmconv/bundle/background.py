"""A function that runs in a thread of its own while this one does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Background(Generic[_T]):
    """Calls ``function`` in another thread; in this one where the system grants none.

    As a context manager it ends with that thread.
    """

    def __init__(self, function: Callable[[], _T]) -> None:
        self._function = function
        self._thread = threading.Thread(target=self._run, name="tvmconv-reader", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._run()

    def __enter__(self) -> Background[_T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread.ident is not None:
            self._thread.join()

    def result(self) -> _T:
        """Wait, and return what the function returned, or raise what it raised."""
        self.__exit__(None, None, None)
        if self._error is not None:
            raise self._error
        return self._value

    def _run(self) -> None:
        self._error: BaseException | None = None
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error
