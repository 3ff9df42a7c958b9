"""Shows a tuning session: one line a layer, live on a terminal, and the first of each kind of error."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tvmconv.commands.show import tables
from tvmconv.records.record import OFFLINE

if TYPE_CHECKING:
    from tvmconv.measuring.process.candidate import Measurement
    from tvmconv.tuning.progress import LayerState, Session

_REDRAW_SECONDS = 0.2
# In which the same error may differ: decisions, files, numbers.
_DETAILS = re.compile(r"\{[^}]*\}|\S*/\S*|-?(\d[\d.]*(e[-+]?\d+)?|\bnan|\binf)\b")


class Plain:
    """One line per finished layer on stderr, and errors in full, each kind once."""

    def __init__(self) -> None:
        self._number, self._errors = 0, set[str]()

    def started(self, session: Session) -> None:
        """Nothing yet."""

    def measured(self, session: Session, state: LayerState) -> None:
        """Show an error of a kind that was not seen before."""
        error = state.search.trials[-1].error
        if error is None:
            return
        kind = _DETAILS.sub("#", error)
        if kind not in self._errors:
            self._errors.add(kind)
            self.show(f"{state.layer.name}: a candidate failed: {error}")

    def finished(self, session: Session, state: LayerState) -> None:
        """Show the layer's line, unless there is nothing to say."""
        self._number += 1
        if state.outcome is not None and state.outcome.untried:
            return
        self.show(f"[{self._number}/{len(session.states)}] {line(session, state)}")

    def show(self, text: str) -> None:
        """Print a line that stays."""
        print(text, file=sys.stderr, flush=True)


class Live(Plain):
    """The same lines; below them, redrawn, the layers that are being searched."""

    def __init__(self, live: Any) -> None:
        super().__init__()
        self._live, self._drawn = live, 0.0

    def measured(self, session: Session, state: LayerState) -> None:
        """Redraw."""
        super().measured(session, state)
        if time.monotonic() - self._drawn > _REDRAW_SECONDS:
            self._drawn = time.monotonic()
            self._live.update(_table(session, state))

    def finished(self, session: Session, state: LayerState) -> None:
        """Show the layer's line for good."""
        super().finished(session, state)
        self._live.update(_table(session, state))

    def show(self, text: str) -> None:
        """Print a line above the table."""
        from rich.text import Text

        self._live.console.print(Text(text))


@contextmanager
def watcher() -> Iterator[Plain]:
    """A `Live` one on a terminal, for a while, else a `Plain` one."""
    if not tables.is_rich(sys.stderr):
        yield Plain()
        return
    from rich.console import Console
    from rich.live import Live as RichLive

    with RichLive(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
        yield Live(_Refreshing(live))


class _Refreshing:
    """rich's Live, drawn when it is told something and at no other time: a thread would disturb timing."""

    def __init__(self, live: Any) -> None:
        self._live, self.console = live, live.console

    def update(self, table: Any) -> None:
        self._live.update(table, refresh=True)


def line(session: Session, state: LayerState) -> str:
    """Everything about a finished layer in one line."""
    outcome = state.outcome
    verdict = "not finished"
    if outcome is not None:
        verdict = "recorded" if outcome.record else outcome.reason
        verdict = f"done earlier: {verdict}" if outcome.earlier else verdict
    if not state.search.trials:
        return f"{state.layer.name}: {verdict}"
    return f"{state.layer.name}: {', '.join(cells(session, state)[1:])}; {verdict}"


def cells(session: Session, state: LayerState) -> list[str]:
    """Name, best rate, share of the peak, gain, trials, failures, time left."""
    best, default = state.search.best, state.search.default_seconds
    texts = [state.layer.name]
    if best is not None and best.seconds:
        rate = state.layer.spec.flops / best.seconds
        texts += [f"{rate / 1e9:.1f} GFLOP/s", _share(session, state, best)]
        gain = state.outcome.gain if state.outcome else None
        if gain is None and default is not None:
            gain = default / best.seconds
        texts.append("" if gain is None else f"{gain:.2f} x the default")
    else:
        texts += ["nothing measured", "", ""]
    trials, failed = len(state.search.trials), len(state.search.failures)
    texts += [f"{trials} trials", f"{failed} failed"]
    if session.plan.place.name != OFFLINE:  # where nobody knows when
        texts.append(f"{left(session.seconds_left)} left")
    return [text for text in texts if text] if state.outcome else texts


def _share(session: Session, state: LayerState, best: Measurement) -> str:
    """Of the peak, by the multiply-adds that the algorithm does."""
    from tvmconv.measuring.roof import bounds
    from tvmconv.tuning import opening

    least = opening.least_seconds(session.plan, state.layer.spec, best.candidate, session.peak)
    share = least / (best.seconds or math.inf)
    if share > bounds.MOST_OF_A_ROOF:  # a later look at the peak, or the results of a board
        return "faster than the peak was at the start"
    return f"{100 * share:.0f} % of peak"


def left(seconds: float) -> str:
    """A time for people: ``45 s``, ``3.2 min``, ``1.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _table(session: Session, current: LayerState) -> Any:
    from rich.table import Table
    from rich.text import Text

    done = sum(state.outcome is not None for state in session.states)
    table = Table.grid(padding=(0, 2))
    open_ = [s for s in session.states if s.outcome is None and s.search.trials]
    for state in open_[-12:]:  # what fits any terminal
        mark = ">" if state is current else " "
        table.add_row(*(Text(text) for text in [mark, *cells(session, state)[:6]]))
    table.add_row("", Text(f"{done} of {len(session.states)} layers done"))
    table.add_row("", Text(f"{left(session.seconds_left)} left"))
    return table
