"""MetaSchedule's XGBoost cost model over the features of `tvmconv.tuning.features`."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm.s_tir.meta_schedule.cost_model.xgb_model import FeatureGroup, XGBModel

from tvmconv import writing
from tvmconv.tuning.features import COLUMNS, Rows

# MetaSchedule guesses at random before 100 samples; these features are few, and a layer's space too.
_LEAST_SAMPLES = 32
# MetaSchedule's own figure for a candidate that failed.
_FAILED_SECONDS = 1e10


class CostModel:
    """One model for all layers: scores are relative to each layer's best, 1 is as fast as that.

    Training starts from all samples each time, as MetaSchedule's does, and waits until they have grown by
    a fifth.
    """

    def __init__(self, seed: int = 0) -> None:
        # Silent, because early stopping would otherwise print a table of every boosting round.
        self._model: Any = XGBModel(
            num_warmup_samples=_LEAST_SAMPLES,
            verbose_eval=0,
            num_tuning_cores=1,
        )
        self._model.config = self._model.config._replace(seed=seed)

    def scores(self, rows: Rows) -> npt.NDArray[np.float64] | None:
        """Predicted speed over that of the layer's best, for each row; None before there is data."""
        if self._model.booster is None or not len(rows):
            return None
        scores: npt.NDArray[np.float64] = self._model._predict([row[None] for row in rows])
        return scores

    def add(self, key: str, rows: Rows, seconds: Sequence[float | None]) -> None:
        """Add samples of a layer, failures (None) included, without training."""
        if not len(rows):
            return
        costs = np.array([s or _FAILED_SECONDS for s in seconds], np.float32)
        features = [row[None] for row in rows]
        if key in self._model.data:
            self._model.data[key].append(features, costs)
        else:
            self._model.data[key] = FeatureGroup(key, features, costs)
        self._model.data_size += len(features)

    def train(self) -> None:
        """Train again if there are enough new samples."""
        model = self._model
        grown = model.data_size - model.last_train_size
        if model.data_size < _LEAST_SAMPLES or grown < max(1.0, model.last_train_size / 5):
            return
        model.last_train_size = model.data_size
        groups = list(model.data.values())
        ratios = np.concatenate([group.min_cost / group.costs for group in groups])
        model._train(xs=[row for group in groups for row in group.features], ys=ratios)

    def save(self, file: Path) -> None:
        """Write the trained model, not the samples: those are in the journals.

        A disk that is full is no error here: the model only guides.
        """
        if self._model.booster is None:
            return
        content = bytes(self._model.booster.save_raw(raw_format="json"))
        with contextlib.suppress(OSError):
            writing.replace(file, _checksum(content) + content)

    def load(self, file: Path) -> None:
        """Read what `save` wrote, if it exists: scores are there before the first measurement.

        A file that is damaged, or of other features, is left alone: the model only guides. XGBoost
        itself does not look closely: a single wrong bit can crash the process.
        """
        import xgboost

        try:
            stored = file.read_bytes()
        except OSError:
            return
        length = len(_checksum(b""))
        content = stored[length:]
        if stored[:length] != _checksum(content):
            return
        booster = xgboost.Booster()
        try:
            booster.load_model(bytearray(content))
        except xgboost.core.XGBoostError:  # of another release
            return
        if booster.num_features() == COLUMNS:
            self._model.booster = booster


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"
