"""How good is the search? Measures all of a layer's space once, then replays the search on that table.

    .venv/bin/python scripts/replay_search.py resnet50:stage4.block1.conv3x3 --table FILE.json

The table is measured if FILE does not exist: hundreds of candidates, a minute or more. Replaying costs no
measurement, so it is done with many seeds: how far from the best of the whole space is what the search has
after so many trials, and when it stops by itself? Random choice is shown beside it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from pathlib import Path
from typing import Any

from tvmconv import hardware
from tvmconv.measuring.places.here import Here
from tvmconv.measuring.process.candidate import Candidate, Identity, Measurement
from tvmconv.problem import workloads
from tvmconv.tuning.model import CostModel
from tvmconv.tuning.search import LayerSearch, all_candidates, defaults

SEEDS = 12
AFTER = (48, 96, 160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layer", metavar="WORKLOAD:LAYER")
    parser.add_argument("--table", type=Path, required=True)
    args = parser.parse_args()
    workload, _, name = args.layer.partition(":")
    spec = next(each for each in workloads.resolve(workload).entries if each.name == name).spec
    machine, pack = hardware.find_machine("host")
    if not args.table.exists():
        args.table.write_text(json.dumps(measured(spec, machine, pack)))
    times = {
        Candidate(schedule, decisions).identity: seconds
        for schedule, decisions, seconds in json.loads(args.table.read_text())
    }
    good = sorted(seconds for seconds in times.values() if seconds)
    # The second best: the very best of hundreds owes something to luck.
    best = good[1]
    found: dict[int, list[float]] = {trials: [] for trials in AFTER}
    ends: list[tuple[int, float]] = []
    for seed in range(SEEDS):
        search = LayerSearch(spec, machine, pack, CostModel(seed))
        search._draw = random.Random(seed)  # noqa: S311 - reproducible on purpose
        replay(search, times, best, found, ends)
    print(f"{args.layer}: {len(times)} candidates, best {1e6 * best:.1f} us, median ", end="")
    print(f"{statistics.median(good) / best:.2f} x that; {SEEDS} seeds:")
    for trials, ratios in found.items():
        if ratios:
            print(
                f"  after {trials} trials: {spread(ratios)}; random {spread(luck(times, best, trials))}"
            )
    stops = [trials for trials, _ in ends]
    print(
        f"  stops by itself after {min(stops)} to {max(stops)} trials with "
        f"{spread([ratio for _, ratio in ends])}"
    )


def measured(spec: Any, machine: Any, pack: Any) -> list[tuple[str, dict[str, Any], float | None]]:
    """Every candidate's time beside the default's."""
    space = all_candidates(spec, machine, pack)
    with Here().open(machine) as measurer:
        (default,) = measurer.measure(spec, defaults(spec, machine, pack)[:1])
        trials = measurer.measure(spec, space, default.seconds or float("inf"), yardstick=default)
    return [(t.candidate.schedule, dict(t.candidate.decisions), t.seconds) for t in trials]


def replay(
    search: LayerSearch,
    times: dict[Identity, float | None],
    best: float,
    found: dict[int, list[float]],
    ends: list[tuple[int, float]],
) -> None:
    """One search, with the table in place of a machine."""
    stopped = False
    while candidates := search.propose():
        for candidate in candidates:
            search.note(Measurement(candidate, times[candidate.identity]))
        search.end_batch()
        search._model.train()
        so_far = search.ranked()[0].seconds or float("inf")
        if len(search.trials) in found:
            found[len(search.trials)].append(so_far / best)
        if not stopped and search.promise() == 0.0:
            stopped = True
            ends.append((len(search.trials), so_far / best))
        if stopped and len(search.trials) >= max(AFTER):
            return


def luck(times: dict[Identity, float | None], best: float, trials: int) -> list[float]:
    """What as many candidates drawn at random would have found."""
    draw = random.Random(0)  # noqa: S311 - reproducible on purpose
    rounds = (draw.sample(list(times.values()), min(trials, len(times))) for _ in range(100))
    return [min(seconds for seconds in each if seconds) / best for each in rounds]


def spread(ratios: list[float]) -> str:
    """Mean and worst, as percent above the best."""
    mean = 100 * (statistics.mean(ratios) - 1)
    return f"{mean:.1f} % from the best (worst {100 * (max(ratios) - 1):.1f} %)"


if __name__ == "__main__":
    main()
