"""Decisions as typed values."""

from __future__ import annotations

import pytest

from tvmconv.schedules.shared.dense import WEIGHTS_OUTER, DenseDecisions
from tvmconv.schedules.shared.typed import read

DECIDED = {"channels": 32, "pixels": 7, "order": WEIGHTS_OUTER, "pad": "image", "rows": 14}


def test_knobs_that_a_space_lacks_have_their_defaults_and_others_are_not_read():
    assert read(DenseDecisions, {**DECIDED, "other": 1}) == DenseDecisions(**DECIDED)
    assert read(DenseDecisions, {**DECIDED, "unroll": 4}).unroll == 4


def test_a_decision_that_is_missing_is_an_error_that_names_it():
    with pytest.raises(TypeError, match="rows"):
        read(DenseDecisions, {name: DECIDED[name] for name in DECIDED if name != "rows"})
