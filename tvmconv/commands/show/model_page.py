"""One self-contained page about a compiled model: race, time of each call, roofline, arena over time."""

from __future__ import annotations

import datetime
import html
from dataclasses import dataclass
from pathlib import Path

from tvmconv.bundle.model_entries import ModelEntry, ProgramEntry
from tvmconv.commands.show import model_charts as charts
from tvmconv.commands.show import tables
from tvmconv.measuring.bench import memory
from tvmconv.measuring.bench.models import Profile, Row
from tvmconv.measuring.peers.models import ModelRace
from tvmconv.measuring.peers.race import OURS

_STYLE = """
:root{color-scheme:light dark;--page:#f6f6f4;--card:#fff;--ink:#1c1c1a;--dim:#5f5f5a;--line:#dededa;
--peer:#a9a9a2;--k0:#2b6cb0;--k1:#dd6b20;--k2:#2f855a;--k3:#b83280;--k4:#6b46c1;--k5:#b7791f;--k6:#0987a0;
--k7:#8a8a84}
@media(prefers-color-scheme:dark){:root{--page:#161615;--card:#20201f;--ink:#ecece8;--dim:#a3a39c;
--line:#3a3a37;--peer:#6f6f69;--k0:#63a4e8;--k1:#f6944f;--k2:#5cb887;--k3:#e571b0;--k4:#a68bf0;--k5:#e0b04c;
--k6:#4cc3d9;--k7:#91918a}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.45 system-ui,sans-serif}
main{max-width:80rem;margin:auto;padding:1rem}
h1{font-size:1.45rem;margin:.2rem 0;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:0 0 .5rem}
p{margin:.3rem 0}
.note,.facts,figcaption{color:var(--dim);font-size:.88rem}
figure{margin:0}figcaption{margin-top:.6rem}
.figures{display:flex;flex-wrap:wrap;gap:.6rem 2rem;margin:1rem 0}
.figures b{display:block;font-size:1.5rem;line-height:1.2}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr));gap:1rem}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.9rem;min-width:0}
section.wide{margin-top:1rem}
svg{display:block;width:100%;height:auto;font:12px system-ui,sans-serif}
text{fill:var(--ink)}text.small{font-size:10.5px;fill:var(--dim)}text.strong{font-weight:600}
.ours{fill:var(--k0)}.peer{fill:var(--peer)}
.spread,.roof,.least{fill:none;stroke:var(--ink);stroke-width:1.2}
.roof.dim{stroke:var(--dim);stroke-dasharray:4 3}.least{stroke-dasharray:3 3}
.grid{stroke:var(--line);stroke-width:.7;fill:none}
.call,.value{stroke:var(--card);stroke-width:.5}.dot{fill-opacity:.75;stroke:var(--card);stroke-width:.6}
.legend{display:flex;flex-wrap:wrap;gap:.15rem 1rem;margin:.5rem 0 0;padding:0;list-style:none;
font-size:.88rem}
.legend i{display:inline-block;width:.75em;height:.75em;border-radius:2px;margin-right:.4em}
.scroll{overflow-x:auto}.whole{white-space:nowrap}
@media(max-width:34rem){svg{font-size:14px}text.small{font-size:13px}}
table{border-collapse:collapse;width:100%;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.18rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--dim);font-weight:500}
.left{text-align:left}
.bar{display:block;height:.55rem;min-width:1px;border-radius:2px}
"""
_FILLS = "".join(
    f".f{at}{{fill:var(--k{at})}}.b{at}{{background:var(--k{at})}}"
    for at in range(charts.KIND_COLOURS)
)


@dataclass(frozen=True)
class Contents:
    """What the page is about.

    Attributes:
        model, program: what was compiled.
        raced: our time beside others', or alone.
        made: the time of each call.
    """

    model: ModelEntry
    program: ProgramEntry
    raced: ModelRace
    made: Profile


def check(path: str) -> None:
    """Raise ValueError for a file that is no page, or where there is no directory for it."""
    if Path(path).suffix.lower() != ".html":
        raise ValueError(f"--report {path}: the name must end in .html")
    if not Path(path).parent.is_dir():
        raise ValueError(f"--report {path}: there is no directory {Path(path).parent}")


def write(path: str, contents: Contents) -> None:
    """Write the page; it refers to nothing outside of it."""
    Path(path).write_text(page(contents), encoding="utf-8")


def page(contents: Contents) -> str:
    """Return the page as HTML."""
    made, program = contents.made, contents.program
    title = html.escape(contents.model.name)
    spans = memory.spans(program.layers)
    colours = charts.kind_numbers(made)
    cards = (
        ("Race", charts.race(contents.raced), _race_notes(contents.raced)),
        ("Where the time goes", charts.timeline(made) + _legend(made), _time_note(made)),
        ("Roofline", charts.roofline(made), _roof_note(made)),
        (
            "Arena over time",
            charts.arena(spans, made.rows, program.arena_bytes, colours),
            _arena_note(program, memory.most_bytes(spans)),
        ),
    )
    body = "".join(
        f"<section><h2>{head}</h2><figure>{drawn}<figcaption>{note}</figcaption>"
        "</figure></section>\n"
        for head, drawn, note in cards
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}: tvmconv bench</title>\n<style>{_STYLE}{_FILLS}</style></head>\n<body><main>\n"
        f"<h1>{title}</h1>\n{_facts(contents)}{_figures(contents)}"
        f'<div class="cards">\n{body}</div>\n{_table(made)}</main></body></html>\n'
    )


def _facts(contents: Contents) -> str:
    made, model = contents.made, contents.model
    threads = f"{made.threads} thread{'s' * (made.threads > 1)}"
    inputs = ", ".join(f"{e.name} {'x'.join(map(str, e.shape))} {e.dtype}" for e in model.inputs)
    facts = (
        f"{made.cpu}, compiled for {made.machine}, {threads}, {datetime.date.today().isoformat()}"
    )
    return f'<p class="facts">{html.escape(facts)}<br>{html.escape(inputs)}</p>\n'


def _figures(contents: Contents) -> str:
    raced, program = contents.raced, contents.program
    figures = [(f"{raced.median(OURS) * 1e3:#.3g} ms", "one call")]
    peers = [name for name in raced.seconds if name != OURS]
    if peers:
        best = min(peers, key=raced.median)
        figures.append((f"{raced.ratio(best):.2f} x", f"that is {best}'s time, the best other"))
    figures += [
        (f"{program.weights_bytes / 1e6:.2f} MB", "weights, mapped"),
        (f"{program.arena_bytes / 1e6:.2f} MB", "arena of a call"),
        (str(len(program.layers)), "compiled calls"),
    ]
    cells = "".join(f"<div><b>{html.escape(a)}</b>{html.escape(b)}</div>" for a, b in figures)
    return f'<div class="figures">{cells}</div>\n'


def _race_notes(raced: ModelRace) -> str:
    notes = [
        f"Median of {raced.rounds} rounds of each one's fastest call; the line is the spread of the rounds. "
        "Each contender has a process of its own; outputs were compared first."
    ]
    notes += [f"{name} has no time: {why}." for name, why in raced.absent.items()]
    return "<br>".join(html.escape(note) for note in notes)


def _time_note(made: Profile) -> str:
    return html.escape(
        "Each call as wide as its time and as high as it is near its limit: the larger of its operations "
        "over the peak and its bytes over the bandwidth. "
        f"The calls alone take {made.sum_microseconds:.1f} us "
        f"together, the whole {made.whole_microseconds:.1f} us ({made.difference_percent:+.1f} %)."
    )


def _roof_note(made: Profile) -> str:
    return (
        "A dot is a convolution, as large as its share of the time. The solid roof has the bandwidth of the "
        "fastest measured copy, the dashed one that of the slowest."
    )


def _arena_note(program: ProgramEntry, least: int) -> str:
    return html.escape(
        f"A value from the call that makes it to its last reader, in its maker's colour. All have "
        f"{program.values_bytes / 1e6:.2f} MB together, the arena has {program.arena_bytes / 1e6:.2f} MB; at "
        f"one call {least / 1e6:.2f} MB are needed (dashed)."
    )


def _legend(made: Profile) -> str:
    colours = charts.kind_numbers(made)
    items = [
        (colours[kind], f"{kind}, {100 * time / made.sum_microseconds:.1f} %")
        for kind, (_, time) in made.kinds().items()
    ]
    last = charts.KIND_COLOURS - 1
    shown = [item for item in items if item[0] < last]
    rest = len(items) - len(shown)
    if rest:
        shown.append((last, f"{rest} other kinds" if rest > 1 else items[-1][1]))
    cells = "".join(f'<li><i class="b{at}"></i>{html.escape(text)}</li>' for at, text in shown)
    return f'<ul class="legend">{cells}</ul>'


def _table(made: Profile) -> str:
    longest = max((row.share for row in made.rows), default=1.0)
    colours = charts.kind_numbers(made)
    rows = "".join(
        _table_row(number, row, colours[row.kind], longest) for number, row in enumerate(made.rows)
    )
    heads = "".join(
        f'<th class="{style}">{name}</th>'
        for name, style in (
            ("call", ""),
            ("what", "left"),
            ("us", ""),
            ("share %", ""),
            ("", "left"),
            ("limit", "left"),
            ("% of limit", ""),
            ("result", "left"),
        )
    )
    return (
        '<section class="wide"><h2>Calls</h2><div class="scroll"><table>'
        f"<tr>{heads}</tr>\n{rows}</table></div></section>\n"
    )


def _table_row(number: int, row: Row, colour: int, longest: float) -> str:
    bar = f'<span class="bar b{colour}" style="width:{6 * row.share / longest:.2f}rem"></span>'
    shape = "x".join(map(str, row.shape))
    return (
        f'<tr><td>{number}</td><td class="left" title="{html.escape(row.symbol)}">'
        f"{html.escape(row.kind)}</td><td>{row.microseconds:.2f}</td><td>{row.share:.1f}</td>"
        f'<td class="left">{bar}</td><td class="left">{row.limit}</td>'
        f"<td>{tables.percent(row.percent_limit)}</td>"
        f'<td class="left">{shape}</td></tr>\n'
    )
