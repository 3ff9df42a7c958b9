"""Fixtures of the tests of the tuner."""

from __future__ import annotations

import pytest
from tuners import faulty_packs


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """The imaginary machines of `third_party.FAULTY`."""
    with faulty_packs(tmp_path_factory.mktemp("packs")) as directory:
        yield directory
