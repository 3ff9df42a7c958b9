"""MetaSchedule's XGBoost cost model over our scheduled functions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm
from tvm.s_tir import Schedule as Loops
from tvm.s_tir.meta_schedule import TuneContext, _ffi_api
from tvm.s_tir.meta_schedule.cost_model import XGBModel
from tvm.s_tir.meta_schedule.logging import get_logging_func
from tvm.s_tir.meta_schedule.runner import RunnerResult
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate

from tvmconv import hardware
from tvmconv.hardware import HardwarePack, Machine
from tvmconv.spec import ConvSpec
from tvmconv.tuning.measure import Candidate, Measurement

# MetaSchedule guesses at random before 100 samples, more than many layers ever get.
_WARM_UP_SAMPLES = 16


def _context(mod: tvm.IRModule, target: dict[str, Any]) -> TuneContext:
    """A TuneContext without its Python constructor.

    That one imports every tensor intrinsic, which parses scripts for 27 s (0.27.0.post1), and the
    cost model uses none of them.
    """
    context = TuneContext.__new__(TuneContext)
    logger = get_logging_func(logging.getLogger(__name__))
    context.__init_handle_by_constructor__(
        _ffi_api.TuneContext, mod, tvm.target.Target(target), None, None, "tvmconv", 1, -1, logger
    )
    return context


class CostModel:
    """One model for all layers of a run: scores are relative to each layer's best."""

    def __init__(self, machine: Machine, pack: HardwarePack, seed: int = 0) -> None:
        self._machine, self._pack = machine, pack
        # Silent, because early stopping would otherwise print a table of every boosting round.
        self._model = XGBModel(
            num_warmup_samples=_WARM_UP_SAMPLES, verbose_eval=0, num_tuning_cores=1
        )
        self._model.config = self._model.config._replace(seed=seed)
        self._scheduled: dict[tuple[str, Any], MeasureCandidate] = {}

    def rank(self, spec: ConvSpec, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Candidates by predicted speed, fastest first; in the order given before there is data."""
        if self._model.booster is None or not candidates:
            return list(candidates)
        measurable = [self._measurable(spec, candidate) for candidate in candidates]
        scores = self._model.predict(self._for(spec, measurable[0]), measurable)
        order = np.argsort(-scores, kind="stable")
        return [candidates[int(i)] for i in order]

    def learn(self, spec: ConvSpec, measurements: Sequence[Measurement]) -> None:
        """Add measurements, failures included, and train again when enough have come."""
        if not measurements:
            return
        measurable = [self._measurable(spec, m.candidate) for m in measurements]
        results = [RunnerResult([m.seconds] if m.seconds else None, m.error) for m in measurements]
        self._model.update(self._for(spec, measurable[0]), measurable, results)

    def _for(self, spec: ConvSpec, example: MeasureCandidate) -> TuneContext:
        # The model groups samples by the module it is told of: one and the same per spec.
        key = (spec.key, "group")
        self._scheduled.setdefault(key, example)
        return _context(self._scheduled[key].sch.mod, dict(self._machine.target))

    def _measurable(self, spec: ConvSpec, candidate: Candidate) -> MeasureCandidate:
        key = (spec.key, candidate.identity)
        if key not in self._scheduled:
            schedule = hardware.find_schedule(candidate.schedule, self._pack)
            function = schedule.apply(spec, self._machine, candidate.decisions)
            module = tvm.IRModule({"main": function.main})
            self._scheduled[key] = MeasureCandidate(Loops(module), [])
        return self._scheduled[key]
