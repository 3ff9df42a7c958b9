"""Every CUDA schedule on every edge case, built as a bundle and run as users run it, on the emulated driver.

Default decisions: TVM's generated host code launches the kernels through TVM's own CUDA runtime. Random ones
are run by test_cuda_kernels.py, with launches that it reads from TVM's loops.
"""

from __future__ import annotations

import os
from unittest import mock

import emulated_driver
import pytest

from tvmconv import hardware
from tvmconv.building import builder
from tvmconv.checking import contract
from tvmconv.records.choice import Selection
from tvmconv.schedules.cuda import PACK

pytestmark = [pytest.mark.slow, emulated_driver.needs_emulation]
TENSOR_CORES = "cuda.conv2d.tensor"
PLACES = [("sm_90", each.name) for each in PACK.schedules]
PLACES += [("sm_80", TENSOR_CORES), ("sm_75", TENSOR_CORES), ("sm_75", "cuda.conv2d.tiled")]
CHECK = """
import hashlib, sys, tvmconv
from tvmconv.checking import gpu as check
library, seen = tvmconv.load(sys.argv[1], device="cuda"), hashlib.sha256()
download = library.gpu.download
library.gpu.download = lambda tensor: seen.update(download(tensor)) or download(tensor)
for number, key in enumerate(library):
    check.check(library[key])
print(number + 1, "are right", seen.hexdigest())
"""


@pytest.mark.parametrize(("arch", "schedule"), PLACES)
def test_bundles_compute_the_oracles_values(arch, schedule, tmp_path):
    machine, _ = hardware.find_machine(arch)
    cases = [each for each in contract.cases(PACK, [machine]) if each.schedule.name == schedule]
    choices = {
        case.spec.key: Selection(case.spec, case.schedule, case.default(), None) for case in cases
    }
    with mock.patch.dict(os.environ, emulated_driver.building()):
        request = builder.Request(machine, PACK, choices)
        specs = [case.spec for case in cases]
        path = builder.build_requests(specs, [request], tmp_path / "edges.tvmconv")

    # Threads in another order: what depends on it lacks a barrier.
    one, other = (
        emulated_driver.run("-c", CHECK, str(path), gpus=arch, EMULATED_SEED=seed) for seed in "01"
    )
    assert one.returncode == 0, one.stderr
    assert one.stdout.startswith(f"{len(choices)} are right ")
    assert other.stdout == one.stdout, other.stderr
