"""Draws a race: every layer under the roofline, and how far ahead of the best library it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvmconv.hardware import host
from tvmconv.measuring.peers import race
from tvmconv.measuring.peers.race import OURS

if TYPE_CHECKING:
    from tvmconv.measuring.peers.race import Race

_COLOURS = dict(
    zip(race.KINDS, ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e"), strict=True)
)


def draw(raced: Race, title: str, path: str) -> None:
    """Write both pictures, side by side, to ``path``; its ending chooses the format."""
    import matplotlib

    matplotlib.use("Agg")  # no screen needed
    from matplotlib import pyplot

    height = max(5.0, 0.2 * len(raced.rows))
    figure, (roof, bars) = pyplot.subplots(1, 2, figsize=(14, height), layout="constrained")
    _roofline(roof, raced)
    _bars(bars, raced)
    figure.suptitle(
        f"{title}, {raced.threads} thread{'s' * (raced.threads > 1)}, {host.cpu_name()}",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _roofline(axes: Any, raced: Race) -> None:
    peak = raced.roof.flops_per_second / 1e9
    low, high = 0.5, 500.0
    for level in raced.roof.bandwidths:
        rate = level.bytes_per_second / 1e9
        corner = peak / rate
        axes.plot([low, corner, high], [low * rate, peak, peak], color="#bbbbbb", linewidth=1)
        size = f"{level.working_set / 2**20:g} MiB"
        axes.annotate(size, (1.05 * low, 1.15 * low * rate), fontsize=7, color="#888888")
    seen = set()
    for row in raced.rows:
        kind, best = race.kind(row.spec), row.best_peer()
        x = row.spec.flops / row.spec.bytes
        mine = row.spec.flops / row.median(OURS) / 1e9
        label = kind if kind not in seen else None
        axes.plot(x, mine, "o", color=_COLOURS[kind], markersize=5, label=label)
        seen.add(kind)
        if best:
            theirs = row.spec.flops / row.median(best) / 1e9
            axes.plot(x, theirs, "o", color=_COLOURS[kind], markersize=5, fillstyle="none")
            axes.plot([x, x], [theirs, mine], color=_COLOURS[kind], linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations per byte")
    axes.set_ylabel("GFLOP/s of direct convolution (filled: tvmconv, open: best library)")
    axes.legend(loc="lower right", fontsize=8)


def _bars(axes: Any, raced: Race) -> None:
    rows = [(row, best) for row in raced.rows if (best := row.best_peer())]
    ratios = [row.ratio(best) for row, best in rows]
    places = list(range(len(rows)))
    axes.barh(places, ratios, color=[_COLOURS[race.kind(row.spec)] for row, _ in rows])
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_yticks(places, [row.name for row, _ in rows], fontsize=6)
    for place, ratio, (_, best) in zip(places, ratios, rows, strict=True):
        axes.text(ratio, place, f" {ratio:.2f} {best}", va="center", fontsize=6)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max(ratios, default=1.0))
    axes.set_xlabel("time of the best library / time of tvmconv")
    axes.spines[["top", "right"]].set_visible(False)
