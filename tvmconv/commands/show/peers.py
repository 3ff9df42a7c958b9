"""The table of `tvmconv bench --peers`: every library's time on every layer, and who is ahead by how much."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvmconv.commands.show import tables
from tvmconv.errors import MissingToolError
from tvmconv.hardware import host
from tvmconv.measuring.peers import library_timer, race
from tvmconv.measuring.peers.race import OURS, Race, Raced
from tvmconv.measuring.roof import bounds


def names(text: str) -> list[str]:
    """Split and check ``--peers``; ``all`` stands for every library that is installed.

    Raises ValueError for an unknown name, MissingToolError when none is installed.
    """
    wanted = (
        list(library_timer.LIBRARIES) if text == "all" else [n.strip() for n in text.split(",")]
    )
    for name in wanted:
        if name not in library_timer.LIBRARIES:
            raise ValueError(
                f"--peers names {name!r}. Known: {', '.join(library_timer.LIBRARIES)}, or all of them: all."
            )
    found = []
    for name in dict.fromkeys(wanted):
        missing = library_timer.missing(name)
        if missing:
            tables.show_note(f"{name} is left out: pip install {' '.join(missing)}")
        else:
            found.append(name)
    if not found:
        raise MissingToolError("none of the libraries is installed: pip install 'tvmconv[bench]'")
    return found


def show(race_: Race) -> None:
    """Print the table, the means by kind, and the networks' sums."""
    columns = (
        "layer",
        "times",
        "kind",
        *race_.contenders,
        "spread",
        "best peer",
        "ratio",
        "% of limit",
    )
    tables.show_table(columns, [_row(row, race_) for row in race_.rows])
    for name in race_.contenders[1:]:
        reasons = {row.absent[name] for row in race_.rows if name in row.absent}
        count = sum(name in row.absent for row in race_.rows)
        if count:
            tables.show_note(
                f"{name} has no time on {count} layers: {'; '.join(sorted(reasons))[:500]}"
            )
    for row in race_.rows:
        share = race.share_of_limit(row, race_.roof)
        if share > bounds.MOST_OF_A_ROOF:
            tables.show_note(tables.above(row.name, "the limit", share))
    means = race.by_kind(race_)
    rows = [(k, len(v), _times(v), f"{min(v):.2f}-{max(v):.2f}") for k, v in means.items()]
    tables.show_table(("kind", "layers", "best peer / ours", "range"), rows)
    tables.show_facts(_sums(race_))


def _row(row: Raced, race_: Race) -> tuple[object, ...]:
    best = row.best_peer()
    own = row.seconds[OURS]
    return (
        row.name,
        row.count,
        race.kind(row.spec),
        *(_microseconds(row.median(name)) for name in race_.contenders),
        f"{100 * (max(own) / min(own) - 1):.0f} %",
        best or "none",
        f"{row.ratio(best):.2f}" if best else "",
        tables.percent(bounds.percent(race.share_of_limit(row, race_.roof))),
    )


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}" if math.isfinite(seconds) else "-"


def _times(ratios: Sequence[float]) -> str:
    return f"{race.geometric_mean(ratios):.3f}"


def _sums(race_: Race) -> list[tuple[str, object]]:
    own = race.network_seconds(race_, OURS)
    facts: list[tuple[str, object]] = [
        ("machine", f"{host.cpu_name()}, threads: {race_.threads}, rounds: {race_.rounds}"),
        ("FMA peak", f"{race_.roof.flops_per_second / 1e9:.1f} GFLOP/s"),
    ]
    for name in race_.contenders:
        total = race.network_seconds(race_, name)
        if math.isfinite(total):
            facts.append((name, f"{total * 1e3:.3f} ms all layers, {total / own:.3f} x ours"))
    return facts


def as_json(race_: Race) -> dict[str, object]:
    """Return everything as plain data; times in microseconds."""
    return {
        "cpu": host.cpu_name(),
        "threads": race_.threads,
        "rounds": race_.rounds,
        "contenders": list(race_.contenders),
        "versions": {name: _versions(name) for name in race_.contenders[1:]},
        "peak_gflops": race_.roof.flops_per_second / 1e9,
        "bandwidths": [
            {"working_set": level.working_set, "gbytes": level.bytes_per_second / 1e9}
            for level in race_.roof.bandwidths
        ],
        "layers": [_layer(row, race_) for row in race_.rows],
        "geometric_means": {
            kind: race.geometric_mean(ratios) for kind, ratios in race.by_kind(race_).items()
        },
        "sums_ms": {
            name: total * 1e3
            for name in race_.contenders
            if math.isfinite(total := race.network_seconds(race_, name))
        },
    }


def _versions(name: str) -> dict[str, str | None]:
    return {
        package: library_timer.version(package) for package in library_timer.module(name).PACKAGES
    }


def _layer(row: Raced, race_: Race) -> dict[str, object]:
    best = row.best_peer()
    return {
        "name": row.name,
        "key": row.key,
        "count": row.count,
        "kind": race.kind(row.spec),
        "microseconds": {n: [1e6 * t for t in times] for n, times in row.seconds.items()},
        "absent": row.absent,
        "best_peer": best,
        "ratio": row.ratio(best) if best else None,
        "percent_of_limit": bounds.percent(race.share_of_limit(row, race_.roof)),
        "flops_per_byte": row.spec.flops / row.spec.bytes,
        "gflops": row.spec.flops / row.median(OURS) / 1e9,
        "best_peer_gflops": row.spec.flops / row.median(best) / 1e9 if best else None,
    }
