"""Draws a comparison: multiply-adds and time beside each other, as shares of the dense convolution."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from tvmconv.errors import MissingToolError

if TYPE_CHECKING:
    from tvmconv.measuring.bench.comparison import Measured


def require(option: str = "--picture") -> None:
    """Raise MissingToolError before any work when there is nothing to draw with."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingToolError(
            f"{option} needs matplotlib. To mend it: pip install 'tvmconv[plots]'"
        )


def draw(measured: list[Measured], title: str, path: str) -> None:
    """Write a bar chart to ``path``; its ending chooses the format."""
    import matplotlib

    matplotlib.use("Agg")  # no screen needed
    from matplotlib import pyplot

    dense = measured[0]
    names = [row.contender.name for row in measured]
    work = [100 * row.contender.macs / dense.contender.macs for row in measured]
    time = [100 * row.microseconds / dense.microseconds for row in measured]
    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    places = range(len(names))
    for offset, values, label, colour in (
        (0.2, work, "multiply-adds", "#8da0cb"),
        (-0.2, time, "time", "#fc8d62"),
    ):
        bars = axes.barh(
            [p + offset for p in places], values, height=0.38, label=label, color=colour
        )
        axes.bar_label(bars, labels=[f"{value:.1f} %" for value in values], padding=3, fontsize=9)
    for place, row in zip(places, measured, strict=True):
        axes.text(
            101,
            place - 0.42,
            f"{row.microseconds:.0f} us, {' + '.join(row.limits)}",
            fontsize=8,
            ha="right",
        )
    axes.set_yticks(list(places), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xlabel("% of the dense convolution's")
    axes.set_title(title, fontsize=9)
    axes.legend(loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
