"""Tables and progress on the terminal: with rich where it is installed, as plain text elsewhere.

Output that is not a terminal's is plain, aligned and never cut, so that other programs can read it.
Progress goes to stderr, so that stdout holds the result alone.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

_WHY = (
    "it leaves out taps in the padding, reads more than it writes, stays in the first-level cache, or a busy "
    "machine has lowered the roof"
)
Progress = Callable[[str, int, int], None]


def show_json(value: Any) -> None:
    """Print ``value`` as JSON."""
    print(json.dumps(value, indent=1))


def show_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None
) -> None:
    """Print ``rows`` under ``columns``; cells hold any text and are not interpreted."""
    cells = [[str(cell) for cell in row] for row in rows]
    if is_rich(sys.stdout):
        _show_rich(columns, cells, title)
    else:
        print(plain_table(columns, cells, title))


def show_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Print names and values, the values aligned."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print(f"{name:{width}}  {value}")


def percent(value: float | None) -> str:
    """A share of a roof; None is one above it, which a sentence of `above` explains."""
    return "above" if value is None else f"{value:.0f}"


def above(name: str, roof: str, times: float) -> str:
    """Say of what is faster than a roof by how much, and why that may be."""
    return f"{name} is {times:.2f} times as fast as {roof}, which is no limit for it: {_WHY}"


def show_note(text: str) -> None:
    """Print a remark where it does not mix with the result."""
    print(text, file=sys.stderr, flush=True)


def plain_table(
    columns: Sequence[str], cells: Sequence[Sequence[str]], title: str | None = None
) -> str:
    """Return a table as text, as wide as its contents."""
    lines = [columns, *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    text = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([title, *text] if title else text)


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """Give a function that shows (what is being done, how far, of how much) for a while."""
    if quiet:
        yield lambda _what, _done, _total: None
    elif is_rich(sys.stderr):
        with _rich_progress() as report:
            yield report
    else:
        yield _plain_progress()


def _plain_progress() -> Progress:
    """A line whenever something else is being done, not one per step."""
    last = ""

    def report(what: str, done: int, total: int) -> None:
        nonlocal last
        if what != last:
            print(f"[{done}/{total}] {what}", file=sys.stderr, flush=True)
        last = what

    return report


def is_rich(stream: TextIO) -> bool:
    """Tell whether ``stream`` is a terminal and rich is there to use it."""
    return stream.isatty() and importlib.util.find_spec("rich") is not None


def _show_rich(columns: Sequence[str], cells: Sequence[Sequence[str]], title: str | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")  # wrapped, never cut: a key must stay whole
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


@contextmanager
def _rich_progress() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    shown = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with shown:
        task = shown.add_task("", total=None)
        yield lambda what, done, total: shown.update(
            task, description=what, completed=done, total=total
        )
