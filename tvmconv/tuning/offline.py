"""Tunes for a machine that is out of reach: batches of built candidates go there, results come back.

A batch has, for each layer that is not finished, what the search proposes, the default beside which it is
timed, and the fastest before, so that the machine also makes the last comparison: every batch that comes
back brings records, and the next one continues the search.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tvmconv import writing
from tvmconv.building import cross, linked
from tvmconv.building.builder import Progress
from tvmconv.bundle import manifest
from tvmconv.errors import BatchError
from tvmconv.hardware import Machine
from tvmconv.measuring.places import batch as batches
from tvmconv.measuring.places import batch_results as files
from tvmconv.measuring.places.batch import Batch, Kernel, LayerKernels
from tvmconv.measuring.places.batch_results import Final, Header, Results
from tvmconv.measuring.process.candidate import Built, Candidate, Measurement
from tvmconv.measuring.process.compiling import Compilers
from tvmconv.measuring.process.device import Processor
from tvmconv.tuning import opening
from tvmconv.tuning.conclude import FINALISTS, PROCESSES, ROUNDS, Origin, decide, finalists
from tvmconv.tuning.plan import Plan
from tvmconv.tuning.progress import LayerState, Session, Watcher
from tvmconv.tuning.search import BATCH
from tvmconv.tuning.session import alone
from tvmconv.version import __version__

_COMPILE_SECONDS = 60.0
_BOARD = "board"  # under which the journal remembers what measures


@dataclass(frozen=True)
class Exported:
    """What was written: None when all layers are finished; and what could not be compiled."""

    batch: Batch | None
    failures: tuple[Measurement, ...]


def export(work: Plan, file: Path, count: int, progress: Progress) -> Exported:
    """Write the next batch, of at most ``count`` candidates a layer.

    Candidates that cannot be compiled are noted as failures. ``progress`` is told what is compiled.
    Raises BuildError when a linked file does not suit the machine, TuningError or OSError when something
    cannot be written.
    """
    with alone(work), writing.scratch("tvmconv-export-") as scratch:
        if work.again:
            for layer in work.layers:
                work.journal.forget(layer.spec.key)
        session = _session(work)
        compilers = Compilers(work.machine, scratch, timeout_seconds=_COMPILE_SECONDS)
        try:
            roof = None
            if work.machine.gpu is None:
                roof = Path(compilers.roof(work.conditions.threads))
            layers: list[LayerKernels] = []
            failures: list[Measurement] = []
            for number, state in enumerate(session.states):
                progress(f"compiling for {work.machine.name}", number, len(session.states))
                made, failed = _exported(work, session, state, compilers, count)
                layers += [made] if made is not None else []
                failures += failed
        finally:
            compilers.close()
        batch = _write(work, file, roof, layers, scratch) if layers else None
        return Exported(batch, tuple(failures))


def learn(work: Plan, file: Path, watcher: Watcher | None = None) -> Session:
    """Take what was measured of an exported batch into the journals, and keep the winners.

    The same file twice is harmless, and so is one that is not complete: its trials count, and the layers
    without a last comparison get no record yet. Raises BatchError for a file that is torn, or of another
    batch or machine.
    """
    results = files.read(file)
    with alone(work):
        batch = _batch_of(work, results.header, file)
        keys = {layer.spec.key for layer in work.layers}
        _require_sound(batch, results, file)
        foreign = [layer.key for layer in batch.layers if layer.key not in keys]
        if foreign:
            raise BatchError(
                f"{file} has results of layers that this workload has not, such as {foreign[0]}: give "
                "the WORKLOAD and --layers of the export"
            )
        _require_same_board(work, results.header, file)
        session = _session(work)
        session.peak = results.header.peak
        if watcher:
            watcher.started(session)
        by_key = {layer.key: layer for layer in batch.layers}
        for state in session.states:
            layer = by_key.get(state.layer.spec.key)
            if layer is not None:
                _learn_layer(work, session, state, layer, results, watcher)
        return session


def _session(work: Plan) -> Session:
    """All layers as the journals have them; the model is trained and kept."""
    session, model = Session(work), opening.model(work)
    session.states += [opening.state(work, layer, model, BATCH) for layer in work.layers]
    model.train()
    model.save(work.journal.model_file())
    return session


def _exported(
    work: Plan, session: Session, state: LayerState, compilers: Compilers, count: int
) -> tuple[LayerKernels | None, list[Measurement]]:
    """Compile a layer's next candidates, as they would be shipped, and note what cannot be.

    Returns None for a layer that needs no more, or whose default cannot be compiled.
    """
    search, key = state.search, state.layer.spec.key
    if work.trials is not None:
        count = min(count, work.trials - len(search.trials))
    if count < 1 or search.promise() == 0.0:
        return None, []
    search.suggest(opening.suggested(work, session, search.spec))
    proposed: list[tuple[Candidate, float | None]]
    proposed = [(candidate, None) for candidate in search.propose(count)]
    known = [(trial.candidate, trial.seconds) for trial in finalists(search)]
    if search.default_trial is not None:
        proposed.insert(0, (search.default, search.default_trial.seconds))
    wanted = [*proposed, *known]
    compiled = compilers.compile(search.spec, [each for each, _ in wanted], shipped=True)
    kernels, failures = [], []
    for (candidate, seconds), built in zip(wanted, compiled, strict=True):
        if isinstance(built, Built):
            decisions = dict(candidate.decisions)
            made = built.placed(Path())
            kernels.append(Kernel(candidate.schedule, decisions, made, seconds))
        elif seconds is None:
            failures.append(Measurement(candidate, None, built.text))
    if failures:
        work.journal.add(key, failures)
    whole = bool(kernels) and kernels[0].candidate.identity == search.default.identity
    return LayerKernels(key, tuple(kernels)) if whole else None, failures


def _write(
    work: Plan, file: Path, roof: Path | None, layers: list[LayerKernels], scratch: Path
) -> Batch:
    import tvm_ffi

    machine = work.machine
    runtime = _runtime(machine, scratch, "libtvm_runtime")
    cuda = [] if machine.gpu is None else [_runtime(machine, scratch, "libtvm_runtime_cuda")]
    built = [kernel.built for layer in layers for kernel in layer.kernels]
    named = {roof.name if roof else None, *(b.library for b in built)}
    names = (named | {b.pack_library for b in built}) - {None}
    libraries = [scratch / str(name) for name in sorted(names, key=str)]
    batch = Batch(
        machine=machine,
        os="linux",
        glibc=linked.checked_glibc(machine, libraries, runtime, *cuda),
        threads=work.conditions.threads,
        cache=work.conditions.cache,
        finalists=FINALISTS,
        rounds=ROUNDS,
        processes=PROCESSES,
        runtime=runtime.name,
        roof=roof.name if roof else None,
        cuda_runtime=cuda[0].name if cuda else None,
        files={path.name: manifest.file_digest(path) for path in (runtime, *cuda, *libraries)},
        layers=tuple(layers),
        tvmconv=__version__,
        tvm_ffi=tvm_ffi.__version__,
    )
    work.journal.note(_noted(batch.name), batches.encode(batch))
    batches.write(file, batch, (runtime, *cuda, *libraries))
    return batch


def _runtime(machine: Machine, scratch: Path, library: str) -> Path:
    path = scratch / manifest.runtime_name(machine.architecture, library)
    shutil.copyfile(cross.runtime_library(machine.architecture, f"{library}.so"), path)
    return path


def _noted(name: str) -> str:
    return f"batch-{name}"


def _batch_of(work: Plan, header: Header, file: Path) -> Batch:
    """The batch that results are of, as it was exported from here."""
    if header.machine != work.machine.name:
        raise BatchError(
            f"{file} was measured for {header.machine}, not for {work.machine.name}: give --machine "
            f"{header.machine}, or the results of a batch for {work.machine.name}"
        )
    body = work.journal.noted(_noted(header.batch))
    if body is None:
        conditions = work.conditions
        raise BatchError(
            f"{file} is of batch {header.batch}, which was not exported for {work.machine.name} with "
            f"{conditions.threads} threads and {conditions.cache} caches into {work.directory}. Give the "
            "options of the export, or results of a batch that was made here."
        )
    return batches.parse(json.dumps(body), f"the batch {header.batch} in {work.journal.folder}")


def _require_same_board(work: Plan, header: Header, file: Path) -> None:
    known = work.journal.noted(_BOARD)
    if known is None:
        work.journal.note(_BOARD, {"cpu": header.cpu, "features": list(header.features)})
    elif known.get("cpu") != header.cpu:
        raise BatchError(
            f"{file} was measured on {header.cpu}, the results before on {known.get('cpu')}: times of two "
            f"machines do not compare. Give another --output for {header.cpu}."
        )


def _require_sound(batch: Batch, results: Results, file: Path) -> None:
    """Raise BatchError where results name what the batch has not."""
    sizes = {layer.key: len(layer.kernels) for layer in batch.layers}
    named = list(results.timed)
    for final in results.finals.values():
        named += [(final.layer, place) for place in final.compared]
        counts = {len(final.compared), *map(len, final.times)}
        full = len(final.times) == batch.processes and len(counts) == 1
        if final.compared[:1] != (0,) or not (full or final.error or len(final.compared) == 1):
            raise BatchError(
                f"{file}: the comparison of {final.layer} is not whole. Measure again."
            )
    for key, place in named:
        if not 0 <= place < sizes.get(key, 0):
            raise BatchError(
                f"{file} was altered: its batch has no candidate {place} of {key}. Measure again."
            )


def _learn_layer(
    work: Plan,
    session: Session,
    state: LayerState,
    layer: LayerKernels,
    results: Results,
    watcher: Watcher | None,
) -> None:
    """Write down trials that are new; where the last comparison was made, keep what it says."""
    known = {trial.candidate.identity for trial in state.memory.trials}
    for place, kernel in enumerate(layer.kernels):
        timed = results.timed.get((layer.key, place))
        if timed is None or kernel.candidate.identity in known:
            continue
        trial = Measurement(kernel.candidate, timed.seconds, timed.error)
        work.journal.add(layer.key, [trial])
        state.search.note(trial)
        if watcher:
            watcher.measured(session, state)
    _conclude(work, state, layer, results)
    if watcher and state.outcome is not None:
        watcher.finished(session, state)


def _conclude(work: Plan, state: LayerState, layer: LayerKernels, results: Results) -> None:
    """Keep what the last comparison says, if there was one.

    Where no trial is new since a comparison was kept, that one stands: a later batch made it, with all
    that won in this one.
    """
    end = state.memory.conclusion
    if end is not None and end.trials == len(state.search.trials):
        state.outcome = opening.earlier(work, state)
    final = results.finals.get(layer.key)
    if final is None and state.search.default_error is not None:
        final = Final(layer.key, (0,), ())
    if state.outcome is not None or final is None:
        return
    ran_on = Processor(results.header.cpu, results.header.driver)
    origin = Origin(work.place, work.machine, ran_on, work.conditions)
    compared = [layer.kernels[at].candidate for at in final.compared]
    opening.keep(work, state, decide(state.search, compared, final.error or final.times, origin))
