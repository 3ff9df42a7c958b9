"""How many threads a call uses: the argument, else the environment, else this process's cores."""

from __future__ import annotations

import os

from tvmconv.hardware import host

# More than cores only take turns. Each costs a stack, and TVM aborts the process where it cannot have one.
MOST_PER_CORE = 8
_OWN = "TVMCONV_NUM_THREADS"
_OF_OTHERS = ("TVM_NUM_THREADS", "OMP_NUM_THREADS")


def thread_count(threads: object = None) -> int:
    """Return how many threads calls use that were asked to use ``threads``, None for the default.

    The default is TVMCONV_NUM_THREADS, else TVM_NUM_THREADS, else OMP_NUM_THREADS, else the cores that this
    process may use. The last two variables mean other libraries too: what is no number there is passed
    over, and what is more than `most_threads` counts as that.

    Raises TypeError and ValueError for what is no number from 1 to `most_threads`.
    """
    if threads is None:
        return _default()
    if not isinstance(threads, int) or isinstance(threads, bool):
        raise TypeError(f"threads must be None or an int, {threads!r} was given")
    return _within("threads", threads)


def most_threads() -> int:
    """Return the largest number of threads that a call may use here."""
    return MOST_PER_CORE * host.available_cores()


def _default() -> int:
    own = os.environ.get(_OWN, "")
    if own:
        if not own.isdecimal():
            raise ValueError(f"the variable {_OWN} must be a number of threads, it is {own!r}")
        return _within(f"the variable {_OWN}", int(own))
    for name in _OF_OTHERS:
        outermost = os.environ.get(name, "").partition(",")[0].strip()  # OpenMP lists nested levels
        if outermost.isdecimal() and int(outermost) > 0:
            return min(int(outermost), most_threads())
    return host.available_cores()


def _within(what: str, count: int) -> int:
    if count < 1:
        raise ValueError(
            f"{what} must be at least 1, {count} was given; None takes all cores of the process"
        )
    if count > most_threads():
        raise ValueError(
            f"{what} must be at most {most_threads()}, {MOST_PER_CORE} for each core that this process may "
            f"use; {count} was given. Without it calls use {host.available_cores()}"
        )
    return count
