"""The report of a tuning session: progress curves and a table, as HTML, PNG or SVG."""

from __future__ import annotations

import datetime
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvmconv.commands.show import picture
from tvmconv.hardware import host

if TYPE_CHECKING:
    from tvmconv.hardware import HardwarePack, Machine
    from tvmconv.measuring.process.candidate import Measurement
    from tvmconv.problem.workloads import Layer
    from tvmconv.tuning.journal import Journal
    from tvmconv.tuning.progress import Session

_KINDS = (".html", ".png", ".svg")
_COLUMNS = 5  # of little diagrams


@dataclass(frozen=True)
class Curve:
    """One layer's search.

    Attributes:
        name, flops: the layer.
        trials: every measurement, in order.
        default_seconds: time of the default; None if it was not measured.
        gain: of the best over the default, measured in the end; None if it did not come to that.
        reason: why there is no record; empty where there is one.
    """

    name: str
    flops: int
    trials: Sequence[Measurement]
    default_seconds: float | None
    gain: float | None
    reason: str

    def best_so_far(self) -> list[float]:
        """GFLOP/s of the best after each trial; 0 before the first that worked."""
        rates, best = [], 0.0
        for trial in self.trials:
            if trial.seconds:
                best = max(best, self.flops / trial.seconds / 1e9)
            rates.append(best)
        return rates

    @property
    def failures(self) -> int:
        """Trials without a time."""
        return sum(trial.seconds is None for trial in self.trials)


def from_session(session: Session) -> list[Curve]:
    """Curves of a session that has just ended."""
    return [
        Curve(
            state.layer.name,
            state.layer.spec.flops,
            state.search.trials,
            state.search.default_seconds,
            state.outcome.gain if state.outcome else None,
            state.outcome.reason if state.outcome else "interrupted",
        )
        for state in session.states
    ]


def from_journals(
    layers: Sequence[Layer], machine: Machine, pack: HardwarePack, journals: Sequence[Journal]
) -> list[Curve]:
    """Curves of all that was tried before, for each layer in the place where most was."""
    from tvmconv.tuning.search import defaults

    curves = []
    for layer in {layer.spec.key: layer for layer in layers if not layer.spec.is_empty}.values():
        memories = (journal.read(layer.spec.key) for journal in journals)
        memory = max(memories, key=lambda each: len(each.trials))
        default = defaults(layer.spec, machine, pack)[0].identity
        seconds = [t.seconds for t in memory.trials if t.candidate.identity == default]
        end = memory.conclusion
        curves.append(
            Curve(
                layer.name,
                layer.spec.flops,
                memory.trials,
                seconds[0] if seconds else None,
                end.gain if end else None,
                end.reason if end else "not finished",
            )
        )
    return curves


def check(path: str) -> None:
    """Raise ValueError for a file that we cannot write, MissingToolError without matplotlib."""
    if Path(path).suffix not in _KINDS:
        raise ValueError(f"--report {path}: the name must end in one of {', '.join(_KINDS)}")
    if not Path(path).parent.is_dir():
        raise ValueError(f"--report {path}: there is no directory {Path(path).parent}")
    picture.require("--report")


def write(path: str, curves: Sequence[Curve]) -> None:
    """Write the report; raises what `check` raises, and OSError."""
    check(path)
    kind = Path(path).suffix
    if kind == ".html":
        Path(path).write_text(_page(curves), encoding="utf-8")
    else:
        Path(path).write_bytes(_drawing(curves, kind[1:]))


def _drawing(curves: Sequence[Curve], kind: str) -> bytes:
    """Little diagrams, one a layer: GFLOP/s of the best so far over trials, the default as a line."""
    from matplotlib.figure import Figure

    drawn = [curve for curve in curves if curve.trials]
    rows = max(1, -(-len(drawn) // _COLUMNS))
    figure = Figure(figsize=(3.2 * _COLUMNS, 2.3 * rows + 0.4), layout="constrained")
    for at, curve in enumerate(drawn):
        _diagram(figure.add_subplot(rows, _COLUMNS, at + 1), curve)
    figure.suptitle("best GFLOP/s so far over trials; dashed: the untuned default")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=100)
    return buffer.getvalue()


def _diagram(axes: Any, curve: Curve) -> None:
    rates = curve.best_so_far()
    axes.step(range(1, len(rates) + 1), rates, where="post", color="tab:blue")
    if curve.default_seconds:
        axes.axhline(
            curve.flops / curve.default_seconds / 1e9,
            linestyle="--",
            linewidth=0.8,
            color="tab:gray",
        )
    axes.set_title(f"{curve.name}" + (f", {curve.gain:.2f} x" if curve.gain else ""), fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_ylim(0, max([*rates, 1e-9]) * 1.1)


def _page(curves: Sequence[Curve]) -> str:
    """One file that needs nothing else: the table, then the drawing as inline SVG."""
    drawing = _drawing(curves, "svg").decode()
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(curve)) + "</tr>\n"
        for curve in curves
    )
    heads = "".join(
        f"<th>{head}</th>"
        for head in ("layer", "best GFLOP/s", "default", "gain", "trials", "failed", "outcome")
    )
    title = f"tvmconv tune, {html.escape(host.cpu_name())}, {datetime.date.today().isoformat()}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        "<style>body{font-family:sans-serif}td,th{padding:.2em .8em;text-align:left}"
        "svg{width:100%;height:auto}</style></head>\n"
        f"<body><h1>{title}</h1>\n<table><tr>{heads}</tr>\n{rows}</table>\n"
        f"{drawing[drawing.index('<svg') :]}\n</body></html>\n"
    )


def _cells(curve: Curve) -> list[str]:
    best = max(curve.best_so_far(), default=0.0)
    default = curve.flops / curve.default_seconds / 1e9 if curve.default_seconds else None
    return [
        curve.name,
        f"{best:.1f}" if best else "",
        f"{default:.1f}" if default else "",
        f"{curve.gain:.3f}" if curve.gain else "",
        str(len(curve.trials)),
        str(curve.failures),
        curve.reason or "recorded",
    ]
