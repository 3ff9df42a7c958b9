"""Times two directories of tuning records against each other, layer by layer, in turn.

    .venv/bin/python scripts/compare_records.py mobilenet_v2 ONE OTHER

A layer without a record in a directory has the default decisions there. Ratios are times with ONE over times
with OTHER, medians over rounds, the mean of two processes; values are checked before a time counts.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from tvmconv import hardware
from tvmconv.measuring.places.here import Here
from tvmconv.measuring.process.candidate import Candidate
from tvmconv.problem import workloads
from tvmconv.records.choice import choose

ROUNDS, PROCESSES = 15, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload")
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--machine", default="host")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    machine, pack = hardware.find_machine(args.machine)
    rows: list[dict[str, Any]] = []
    with Here().open(machine) as measurer:
        for layer in workloads.resolve(args.workload).entries:
            chosen = [choose(layer.spec, machine, pack, [d]) for d in (args.one, args.other)]
            candidates = [Candidate(c.schedule.name, c.decisions) for c in chosen]
            times = measurer.interleave(layer.spec, candidates, ROUNDS, PROCESSES)
            if isinstance(times, str):
                raise SystemExit(f"{layer.name}: {times}")
            medians = [[statistics.median(rounds) for rounds in process] for process in times]
            one, other = (statistics.mean(process[i] for process in medians) for i in (0, 1))
            rows.append({"layer": layer.name, "count": layer.count, "one": one, "other": other})
            same = ", the same decisions" if chosen[0].decisions == chosen[1].decisions else ""
            print(
                f"{layer.name}: {1e6 * one:.1f} us, {1e6 * other:.1f} us, {one / other:.3f}{same}"
            )
    ratios = [row["one"] / row["other"] for row in rows]
    total = [sum(row["count"] * row[name] for row in rows) for name in ("one", "other")]
    print(
        f"geometric mean {math.exp(statistics.mean(map(math.log, ratios))):.3f}, "
        f"range {min(ratios):.3f} to {max(ratios):.3f}; the network {1e3 * total[0]:.3f} ms, "
        f"{1e3 * total[1]:.3f} ms, {total[0] / total[1]:.3f}"
    )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
