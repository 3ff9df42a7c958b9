"""GPUs over TVM's RPC: a real tracker and real servers on loopback, whose measuring process is rehearsed.

The board finds no GPU here: it is told of one (`gpus.find`), and its measuring process works on main memory
(`gpu_stand_rehearsal.start`). All else is as it would be: the tracker, uploads, the server, the process that is
replaced, and without the rehearsal the refusal of a machine without a driver.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gpu_bundles
import gpu_stand_rehearsal
import pytest
from gpu_rehearsal import SPEC
from tuning_helpers import only_x86

from tvmconv import cli, cross, hardware
from tvmconv.errors import TuningError
from tvmconv.gpu import driver as cuda_driver
from tvmconv.tuning.candidate import Candidate
from tvmconv.tuning.fleet import Fleet
from tvmconv.tuning.gpus import Here
from tvmconv.tuning.running import Conditions, Libraries

pytest_plugins = ("rpc_fixtures",)
pytestmark = [only_x86, pytest.mark.slow, pytest.mark.timeout(300)]
no_driver = pytest.mark.skipif(cuda_driver.driver() is not None, reason="this machine has a driver")
DRIVER = "driver 580.65.06, CUDA 13.0"
# `tvmconv board` on a machine with that card, which is said to be there; arguments: card, then the verb's.
REHEARSED = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import gpu_bundles, gpu_stand_rehearsal
from tvmconv import cli
from tvmconv.tuning import gpus, running
found = gpus.Found(getattr(gpu_bundles, sys.argv[1]), 1, {DRIVER!r})
gpus.find = lambda machine: found
running.gpu_stand.start = gpu_stand_rehearsal.start
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return gpu_stand_rehearsal.libraries(tmp_path_factory.mktemp("libraries"))


@pytest.fixture
def card(start):
    """Start a board with a card of this name in `gpu_bundles`."""
    return lambda name: start(sys.executable, "-c", REHEARSED, name)


@pytest.fixture
def fleet(where):
    made = []

    def make(cache="warm"):
        machine, _ = hardware.find_machine("sm_90")
        names = ("libtvm_runtime.so", "libtvm_runtime_cuda.so")
        runtime, cuda = (cross.runtime_library("x86_64", name) for name in names)
        libraries = Libraries(runtime, cuda_runtime=cuda)
        made.append(Fleet(where, machine, libraries, Conditions(cache=cache)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def pairs(built):
    return [(Candidate("cuda.conv2d.direct", {"number": at}), one) for at, one in enumerate(built)]


def measure(fleet, built, default=None):
    beside = (None, 0.0) if default is None else default
    return fleet.measure_each(SPEC, pairs(built), float("inf"), beside, lambda _measured: None)


def test_a_card_measures_over_rpc(card, fleet, built):
    card("H100")
    boards = fleet()
    assert boards.here == Here(gpu_bundles.H100.name, DRIVER)

    (default,) = measure(boards, built[:1])
    assert default.error is None
    assert 1e-7 < default.seconds < 1e-1
    found = measure(boards, built, (built[0], default.seconds))
    # main1 is wrong; main2 spoils its process, which is replaced before main3.
    assert [each.error is None for each in found] == [True, False, False, True]
    assert "values are wrong" in found[1].error
    assert "an illegal memory access" in found[2].error
    times = boards.interleave(SPEC, [built[0], built[3]], 2, 2)
    assert [[len(rounds) for rounds in process] for process in times] == [[2, 2]] * 2
