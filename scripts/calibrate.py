"""Measures decisions on this CPU, keeps them as points, and shows how default decisions stand among them.

    .venv/bin/python scripts/calibrate.py measure          the sample below, resumed where it ended
    .venv/bin/python scripts/calibrate.py measure SPEC ... keys, workloads, or WORKLOAD:LAYER
    .venv/bin/python scripts/calibrate.py missing          defaults that are no point, after a change
    .venv/bin/python scripts/calibrate.py report           losses of the defaults; needs no such CPU

Candidates are what the tuner's search proposes: the default of each schedule, then what its model expects to
be fast, neighbours of the best and some at random. Values are checked before a time counts; the fastest are
timed again in turn. The least of many short runs counts, since some are quiet on a busy machine too. One
thread.
"""

from __future__ import annotations

import argparse
import datetime
import math
import time
from collections.abc import Iterable, Sequence

import calibration
from calibration import Point, Run

from tvmconv import hardware
from tvmconv.hardware import HardwarePack, Machine
from tvmconv.measuring.places.here import Here
from tvmconv.measuring.places.place import Measurer
from tvmconv.measuring.process.candidate import Candidate, Measurement
from tvmconv.problem import workloads
from tvmconv.problem.spec import ConvSpec
from tvmconv.tuning.model import CostModel
from tvmconv.tuning.search import LayerSearch

# Of every kind of layer some that differ in size and channels, and those that once were found slow.
SAMPLE = (
    "found_slow:3x3_112x112x128",
    "resnet50:stage4.block1.conv3x3",
    "resnet50:stage4.block1.downsample",
    "found_slow:1x1_75to45",
    "found_slow:1x1_112to672",
    "found_slow:1x1_1152to320",
    "found_slow:3x3_48to56",
    "found_slow:3x3_21to35",
    "found_slow:depthwise_256x256x144",
    "found_slow:depthwise_512x512x96_stride2",
    "found_slow:depthwise_1000x15x64",
    "mobilenet_v2:block2.depthwise",
    "mobilenet_v2:block3.depthwise",
    "mobilenet_v2:block5.depthwise",
    "mobilenet_v2:block8.depthwise",
    "mobilenet_v2:block15.depthwise",
    "efficientnet_b0:block5.depthwise",
    "convnext_tiny:stage1.block1.depthwise",
    "convnext_tiny:stage3.block1.depthwise",
    "mobilenet_v2:stem",
    "resnet50:stem",
    "mobilenet_v2:block2.expand",
    "mobilenet_v2:block3.project",
    "mobilenet_v2:block8.expand",
    "mobilenet_v2:head",
    "resnet50:stage1.block1.conv3x3",
    "resnet50:stage1.block1.expand",
    "resnet50:stage2.block2.reduce",
    "resnet50:stage3.block2.conv3x3",
    "resnet50:stage3.block2.expand",
    "resnet50:stage3.block1.downsample",
    "resnet50:stage4.block2.reduce",
    "resnet50:stage4.block2.conv3x3",
    "vgg16:block1.conv2",
    "vgg16:block3.conv2",
    "vgg16:block5.conv1",
    "densenet121:block1.layer1.conv3x3",
    "densenet121:block3.layer10.reduce",
    "inception_v3:mixed0.5x5.conv2",
    "inception_v3:mixed5.7x7.conv2",
    "inception_v3:mixed9.twice.across.conv1",
    "yolov8n:down2",
    "yolov8n:backbone3.bottleneck1.conv1",
    "yolov8n:head3.classes.conv1",
    "convnext_tiny:downsample2",
    "convnext_tiny:stage4.block1.expand",
)
TRIALS = 24
FINALISTS, ROUNDS = 5, 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("measure", "missing", "report"))
    parser.add_argument("specs", nargs="*", metavar="SPEC")
    parser.add_argument("--machine", default="host")
    parser.add_argument("--trials", type=int, default=TRIALS, help="candidates of a spec")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="begin no spec after so long"
    )
    args = parser.parse_args()
    machine, pack = hardware.find_machine(args.machine)
    if args.what == "report":
        report(machine, pack)
        return
    deadline = time.monotonic() + 60 * args.minutes
    path = calibration.file_of(machine, pack)
    place = Here(timeout_seconds=90.0)
    place.require(machine)
    with place.open(machine) as measurer:
        run = _run(measurer)
        if args.what == "missing":
            found = calibration.standings(calibration.read(path), machine, pack)
            for each in found:
                if each.default is None and time.monotonic() < deadline:
                    calibration.append(path, _defaults_again(each, run, measurer, machine, pack))
                    print(each.key, flush=True)
            report(machine, pack)
            return
        known = {point.key for point in calibration.read(path)} if not args.specs else set()
        model = CostModel()
        for spec in _specs(args.specs or SAMPLE):
            if spec.key not in known and time.monotonic() < deadline:
                begin = time.monotonic()
                search = LayerSearch(spec, machine, pack, model)
                points = _measured(search, args.trials, run, measurer)
                calibration.append(path, points)
                print(f"{spec.key}: {len(points)} in {time.monotonic() - begin:.0f} s", flush=True)
    report(machine, pack)


def _specs(names: Iterable[str]) -> list[ConvSpec]:
    found: dict[ConvSpec, None] = {}
    for name in names:
        workload, _, label = name.partition(":")
        for layer in workloads.resolve(workload).entries:
            if label in ("", layer.name):
                found[layer.spec] = None
    return list(found)


def _run(measurer: Measurer) -> Run:
    roof = measurer.roof()
    gbytes = "/".join(f"{level.bytes_per_second / 1e9:.0f}" for level in roof.bandwidths)
    today = datetime.date.today().isoformat()
    return Run(today, measurer.processor.name, round(roof.flops_per_second / 1e9, 1), gbytes)


def _measured(search: LayerSearch, trials: int, run: Run, measurer: Measurer) -> list[Point]:
    """Points of a spec: what the search proposes, the fastest of which are timed again in turn."""
    spec = search.spec
    (default,) = measurer.measure(spec, [search.default])
    if default.seconds is None:
        raise SystemExit(f"{spec.key}: the default fails: {default.error}")
    search.note(default)
    while len(search.trials) < trials:
        count = min(8, trials - len(search.trials))
        candidates = search.propose(count)
        if not candidates:
            break
        best = search.best
        so_far = best.seconds if best and best.seconds else math.inf
        for trial in measurer.measure(spec, candidates, so_far):
            search.note(trial)
        search.end_batch()
        search._model.train()
    times = {each.candidate.identity: each.seconds or 0.0 for each in search.ranked()}
    final = _in_turn(spec, [default, *search.ranked()], measurer)
    times = {
        identity: min(seconds, final.get(identity, math.inf)) for identity, seconds in times.items()
    }
    return [
        Point(run, spec.key, each.candidate, 1e6 * times[each.candidate.identity])
        for each in search.ranked()
    ]


def _in_turn(
    spec: ConvSpec, ranked: Sequence[Measurement], measurer: Measurer
) -> dict[object, float]:
    """Least seconds of the first and the fastest others, by identity."""
    candidates = list({each.candidate.identity: each.candidate for each in ranked}.values())
    candidates = candidates[: FINALISTS + 1]
    times = measurer.interleave(spec, candidates, ROUNDS)
    if isinstance(times, str):  # a compiler may have been starved on a busy machine
        print(f"{spec.key}: not in turn, {times}")
        return {}
    (process,) = times
    return {c.identity: min(rounds) for c, rounds in zip(candidates, process, strict=True)}


def _defaults_again(
    standing: calibration.Standing,
    run: Run,
    measurer: Measurer,
    machine: Machine,
    pack: HardwarePack,
) -> list[Point]:
    """The default's point, in units of the best point, beside which it is timed."""
    spec = ConvSpec.from_key(standing.key)
    default: Candidate = calibration.default_of(standing.key, machine, pack)
    (checked,) = measurer.measure(spec, [default])
    if checked.seconds is None:
        raise SystemExit(f"{spec.key}: the default fails: {checked.error}")
    pair = [Measurement(default, None), Measurement(standing.best.candidate, None)]
    seconds = _in_turn(spec, pair, measurer)
    if not seconds:
        return []
    ratio = seconds[default.identity] / seconds[standing.best.candidate.identity]
    return [Point(run, spec.key, default, ratio * standing.best.microseconds)]


def report(machine: Machine, pack: HardwarePack) -> None:
    """One line for each spec, slowest defaults first, and the means by kind."""
    points = calibration.read(calibration.file_of(machine, pack))
    found = calibration.standings(points, machine, pack)
    missing = [each.key for each in found if each.default is None]
    known = sorted((each for each in found if each.default), key=lambda each: each.share)
    for each in known:
        best, default = each.best, each.default
        assert default is not None  # noqa: S101 - as selected
        print(
            f"{each.share:.3f} {default.microseconds:9.1f} {best.microseconds:9.1f} us {each.key}"
        )
        if best is not default:
            changed = dict(default.candidate.decisions.items() - best.candidate.decisions.items())
            print(f"      {default.candidate.schedule} {changed}")
            changed = dict(best.candidate.decisions.items() - default.candidate.decisions.items())
            print(f"      {best.candidate.schedule} {changed}")
    if known:
        mean = calibration.geometric_mean(each.share for each in known)
        print(
            f"{len(known)} defaults at {mean:.3f} of the best points, lowest {known[0].share:.3f}"
        )
    if missing:
        print(f"{len(missing)} defaults were not measured: scripts/calibrate.py missing")


if __name__ == "__main__":
    main()
