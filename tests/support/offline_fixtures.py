"""A batch of candidates with its results, for tests of offline tuning; they bring `packs`."""

from __future__ import annotations

import shutil

import pytest
from offline_batches import COUNT, measure, tune
from tuners import POINTWISE, workload


@pytest.fixture(scope="module")
def made(packs, tmp_path_factory):
    """A folder with a batch of a layer whose default is slow, and its results; do not write there."""
    folder = tmp_path_factory.mktemp("made")
    workload(folder, POINTWISE)
    assert tune(folder, "slow-default", "--export", folder / "c.tar", "--batch", COUNT) == 0
    done = measure(folder / "c.tar")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def own(made, tmp_path):
    """A copy of it."""
    folder = tmp_path / "own"
    shutil.copytree(made, folder)
    return folder
