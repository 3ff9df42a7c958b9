"""The drawings of a model's page, each an inline SVG that takes its colours from the page.

They are drawn for a card of 420 units, each about a pixel of a narrow screen: letters stay legible there.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence

from tvmconv.measuring.bench import memory
from tvmconv.measuring.bench.memory import Span
from tvmconv.measuring.bench.models import Profile, Row
from tvmconv.measuring.peers.models import ModelRace
from tvmconv.measuring.peers.race import OURS

WIDTH = 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 12, 34  # around the area of a diagram
KIND_COLOURS = 8  # --k0 to --k7 of the page; the last is for all other kinds


def kind_numbers(made: Profile) -> dict[str, int]:
    """Kind -> its colour's number; the largest first, all that are left share the last."""
    return {kind: min(at, KIND_COLOURS - 1) for at, kind in enumerate(made.kinds())}


def race(raced: ModelRace) -> str:
    """A bar for each contender, fastest first, with the spread of its rounds."""
    order = sorted(raced.seconds, key=raced.median)
    longest = max(max(raced.seconds[name]) for name in order)
    left, right, step = 92.0, 128.0, 30
    scale = (WIDTH - left - right) / longest
    parts = []
    for at, name in enumerate(order):
        y, median, times = at * step + 6, raced.median(name), raced.seconds[name]
        low, high = left + min(times) * scale, left + max(times) * scale
        ratio = "" if name == OURS else f", {raced.ratio(name):.2f} x"
        style = "ours" if name == OURS else "peer"
        parts += [
            _text(left - 6, y + 13, name, "end", "strong" if name == OURS else ""),
            _rect(left, y, median * scale, 18, style, f"{name}: {median * 1e3:.3f} ms{ratio}"),
            f'<path class="spread" d="M{low:.1f} {y + 9}H{high:.1f}'
            f'M{low:.1f} {y + 5}v8M{high:.1f} {y + 5}v8"/>',
            _text(WIDTH - right + 8, y + 13, f"{median * 1e3:#.3g} ms{ratio}", "start"),
        ]
    return _svg(len(order) * step + 8, parts, "time of one call by runtime")


def timeline(made: Profile) -> str:
    """Every call as wide as its time, as high as it is near its limit."""
    height = 220
    area = _Area((0, made.sum_microseconds), (0, 120), height)
    colours = kind_numbers(made)
    parts = [
        *area.grid_x(_steps(made.sum_microseconds), "{:g}"),
        *area.grid_y((0, 50, 100), "{:g} %"),
    ]
    begin = 0.0
    for number, row in enumerate(made.rows):
        share = row.percent_limit
        x, y = area.x(begin), area.y(120 if share is None else share)
        width = max(area.x(begin + row.microseconds) - x, 0.5)
        what = (
            f"call {number}, {row.kind}: {row.microseconds:.2f} us, {row.share:.1f} % of the sum, "
        )
        what += "above" if share is None else f"{share:.0f} % of"
        what += f" what {row.limit} allows"
        parts.append(_rect(x, y, width, area.y(0) - y, f"f{colours[row.kind]} call", what))
        begin += row.microseconds
    parts.append(area.label_x("microseconds, call after call"))
    return _svg(height, parts, "time of each call, and how near it is to its limit")


def roofline(made: Profile) -> str:
    """Convolutions by operations per byte and operations a second, under the measured roof."""
    rows = [row for row in made.rows if row.flops]
    if not rows:
        return '<p class="note">no convolution in this model</p>'
    height, peak = 280, made.roof.flops_per_second / 1e9
    rates = [row.flops / row.microseconds / 1e3 for row in rows]
    intensities = [row.flops / row.bytes for row in rows]
    fastest, slowest = _outer_levels(made)
    low = min(*intensities, peak / fastest[1]) / 1.6
    area = _Area(
        (low, max(*intensities, peak / slowest[1]) * 1.6),
        (min(*rates, low * slowest[1]) / 1.6, max(*rates, peak) * 1.8),
        height,
        logarithmic=True,
    )
    parts = [*area.grid_x(_decades(area.xs), "{:g}"), *area.grid_y(_decades(area.ys), "{:g}")]
    for (size, rate), name in ((fastest, ""), (slowest, " dim")):
        corner = peak / rate
        begin = max(area.xs[0], area.ys[0] / rate)
        points = [(begin, begin * rate), (corner, peak), (area.xs[1], peak)]
        line = " ".join(f"{area.x(x):.1f},{area.y(y):.1f}" for x, y in points)
        what = f"copies of {_size(size)}: {rate:.0f} GB/s; peak {peak:.0f} GFLOP/s"
        parts.append(f'<polyline class="roof{name}" points="{line}">{_title(what)}</polyline>')
    parts.append(
        _text(area.x(area.xs[1]) - 2, area.y(peak) - 5, f"{peak:.0f} GFLOP/s", "end", "small")
    )
    colours = kind_numbers(made)
    for row, x, y in sorted(zip(rows, intensities, rates, strict=True), key=lambda r: -r[0].share):
        radius = 2.5 + 2.2 * math.sqrt(row.share)
        what = f"{row.key}: {y:.1f} GFLOP/s, {x:.1f} operations a byte, {row.microseconds:.2f} us"
        parts.append(
            f'<circle class="f{colours[row.kind]} dot" cx="{area.x(x):.1f}" cy="{area.y(y):.1f}" '
            f'r="{radius:.1f}">{_title(what)}</circle>'
        )
    parts += [area.label_x("operations per byte"), _text(4, 10, "GFLOP/s", "start", "small")]
    return _svg(height, parts, "roofline of the convolutions")


def arena(
    found: Sequence[Span], rows: Sequence[Row], bytes_: int, colours: Mapping[str, int]
) -> str:
    """The arena's bytes over the calls: a rectangle for each value, from its maker to its last reader."""
    if not found:
        return '<p class="note">this model keeps nothing in an arena</p>'
    height = 240
    unit, name = (1e6, "MB") if bytes_ >= 1e6 else (1e3, "kB")
    area = _Area((0, len(rows)), (0, bytes_ / unit), height)
    parts = [
        *area.grid_x(_steps(len(rows)), "{:g}"),
        *area.grid_y(_steps(bytes_ / unit), "{:g}"),
    ]
    for span in found:
        x, y = area.x(span.first), area.y(span.end / unit)
        what = f"{span.symbol}, calls {span.first} to {span.last}: {_size(span.end - span.begin)}"
        style = f"f{colours[rows[span.first].kind]} value"
        width, tall = area.x(span.last + 1) - x, area.y(span.begin / unit) - y
        parts.append(_rect(x, y, width, max(tall, 0.8), style, what))
    at = area.y(memory.most_bytes(found) / unit)
    parts.append(
        f'<path class="least" d="M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}">{_title("the least")}</path>'
    )
    parts += [area.label_x("call"), _text(4, 10, name, "start", "small")]
    return _svg(height, parts, "values of the arena over the calls")


class _Area:
    """Where a diagram's values are on its card; both axes linear, or both logarithmic."""

    def __init__(
        self,
        xs: tuple[float, float],
        ys: tuple[float, float],
        height: int,
        logarithmic: bool = False,
    ) -> None:
        self.xs, self.ys, self._height, self._log = xs, ys, height, logarithmic

    def x(self, value: float) -> float:
        """From the left."""
        return _LEFT + self._share(value, self.xs) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """From the top."""
        bottom = self._height - _BOTTOM
        return bottom - self._share(value, self.ys) * (bottom - _TOP)

    def _share(self, value: float, bounds: tuple[float, float]) -> float:
        low, high = bounds
        if self._log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / ((high - low) or 1)

    def grid_x(self, ticks: Iterable[float], form: str) -> list[str]:
        """Lines and numbers below."""
        bottom = self._height - _BOTTOM
        return [
            f'<path class="grid" d="M{self.x(t):.1f} {_TOP}V{bottom}"/>'
            + _text(self.x(t), bottom + 13, form.format(t), "middle", "small")
            for t in ticks
        ]

    def grid_y(self, ticks: Iterable[float], form: str) -> list[str]:
        """Lines and numbers on the left."""
        return [
            f'<path class="grid" d="M{_LEFT} {self.y(t):.1f}H{WIDTH - _RIGHT}"/>'
            + _text(_LEFT - 4, self.y(t) + 4, form.format(t), "end", "small")
            for t in ticks
        ]

    def label_x(self, text: str) -> str:
        """What the axis below is."""
        return _text((WIDTH + _LEFT - _RIGHT) / 2, self._height - 6, text, "middle", "small")


def _outer_levels(made: Profile) -> tuple[tuple[int, float], tuple[int, float]]:
    """Working set and GB/s of the fastest and the slowest measured copy."""
    levels = [(each.working_set, each.bytes_per_second / 1e9) for each in made.roof.bandwidths]
    return max(levels, key=lambda each: each[1]), min(levels, key=lambda each: each[1])


def _steps(most: float) -> list[float]:
    """Round numbers from 0 to ``most``, four to eight of them."""
    step = 10 ** math.floor(math.log10(max(most, 1e-9) / 2))
    step *= next(each for each in (1, 2, 5, 10) if most / (step * each) <= 6)
    return [step * at for at in range(int(most / step) + 1)]


def _decades(bounds: tuple[float, float]) -> list[float]:
    """Powers of ten, with their doubles and halves where there are few."""
    low, high = (math.log10(each) for each in bounds)
    factors = (1,) if high - low > 2 else (1, 2, 5)
    ticks = [10.0**e * f for e in range(math.floor(low), math.ceil(high)) for f in factors]
    return [each for each in ticks if bounds[0] <= each <= bounds[1]]


def _size(count: float) -> str:
    return f"{count / 2**20:.3g} MiB" if count >= 2**20 else f"{count / 2**10:.3g} KiB"


def _svg(height: float, parts: Iterable[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(label)}">'
        + "\n".join(parts)
        + "</svg>"
    )


def _rect(x: float, y: float, width: float, height: float, style: str, what: str) -> str:
    return (
        f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{width:.2f}" height="{height:.1f}">'
        f"{_title(what)}</rect>"
    )


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _title(text: str) -> str:
    return f"<title>{html.escape(text)}</title>"
