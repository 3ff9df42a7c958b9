"""Loading a bundle for a GPU: what is said on a machine that cannot, before anything is opened."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import gpu_bundles
import pytest

import tvmconv
from tvmconv.errors import IncompatibleMachineError
from tvmconv.hardware import cuda_driver
from tvmconv.runtime.cuda import opening

no_driver = pytest.mark.skipif(cuda_driver.driver() is not None, reason="this machine has a driver")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return gpu_bundles.build(
        tmp_path_factory.mktemp("both"), ["host", "toy-90"], [gpu_bundles.PLAIN]
    )


@pytest.fixture(scope="module")
def gpu_only(tmp_path_factory):
    return gpu_bundles.build(tmp_path_factory.mktemp("gpu"), ["toy-75"], [gpu_bundles.PLAIN])


@no_driver
@gpu_bundles.needs_compiler
@pytest.mark.parametrize("device", ["cuda", "cuda:1", SimpleNamespace(type="cuda", index=None)])
def test_without_a_driver_the_error_says_so(both, device):
    with pytest.raises(
        IncompatibleMachineError, match=r"no NVIDIA driver \(libcuda\.so\.1\).*device='cpu'"
    ):
        tvmconv.load(both, device=device)


@no_driver
@gpu_bundles.needs_compiler
def test_a_bundle_of_gpu_kernels_alone_is_for_the_first_gpu(gpu_only, both):
    with pytest.raises(IncompatibleMachineError, match="no NVIDIA driver"):
        tvmconv.load(gpu_only)
    with pytest.raises(IncompatibleMachineError, match="is for GPUs of sm_75"):
        tvmconv.load(gpu_only, device="cpu")
    assert tvmconv.load(both).variant.gpu is None
    assert tvmconv.load(both, device="cpu").variant.gpu is None


@no_driver
@gpu_bundles.needs_compiler
def test_nothing_is_opened_before_the_checks(gpu_only):
    code = f"""
        import sys, tvmconv
        try:
            tvmconv.load({str(gpu_only)!r})
        except tvmconv.errors.TvmconvError as error:
            print(type(error).__name__)
        print(*[line.split()[-1] for line in open("/proc/self/maps") if "libtvm_runtime" in line])
        print(*{{"torch", "cupy", "jax", "tvm"}} & sys.modules.keys())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.stdout.split("\n") == ["IncompatibleMachineError", "", "", ""], done.stderr


@pytest.mark.parametrize(
    ("device", "index"),
    [
        (None, None), ("cpu", None), (SimpleNamespace(type="cpu", index=None), None), ("cuda", 0),
        ("cuda:0", 0), ("cuda:12", 12), (SimpleNamespace(type="cuda", index=3), 3),
        (SimpleNamespace(type="cuda", index=None), 0),
    ],
)  # fmt: skip
def test_devices_as_users_write_them(device, index):
    assert opening.device_index(device) == index


@pytest.mark.parametrize(
    ("device", "error"),
    [
        ("gpu", ValueError),
        ("cuda:", ValueError),
        ("cuda:-1", ValueError),
        ("mps", ValueError),
        (SimpleNamespace(type="mps", index=0), ValueError),
        (1, TypeError),
    ],
)
def test_other_devices_are_refused_with_what_is_allowed(device, error):
    with pytest.raises(error, match=r"'cuda:N'"):
        opening.device_index(device)


class Driver:
    """Answers as NVIDIA's driver does on a machine that this is not."""

    def __init__(self, version, status=0):
        self.version, self.status = version, status

    def cuDriverGetVersion(self, number):  # noqa: N802
        number._obj.value = self.version
        return 0

    def cuInit(self, _flags):  # noqa: N802
        return self.status

    def cuGetErrorName(self, _status, name):  # noqa: N802
        name._obj.value = b"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"
        return 0


def test_an_old_driver_is_told_from_a_broken_one_and_from_no_gpu(monkeypatch):
    monkeypatch.setattr(cuda_driver, "driver", lambda: Driver(12040))
    with pytest.raises(tvmconv.errors.MissingToolError, match=r"CUDA 12\.4 and older.*driver 580"):
        opening.find_device(0)

    monkeypatch.setattr(cuda_driver, "driver", lambda: Driver(13000, status=803))
    with pytest.raises(
        tvmconv.errors.MissingToolError, match="does not start: cuInit gives CUDA_ERROR_SYS"
    ):
        opening.find_device(0)

    monkeypatch.setattr(cuda_driver, "driver", lambda: Driver(13000, status=100))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(IncompatibleMachineError, match=r"no GPU.*CUDA_VISIBLE_DEVICES is '7'"):
        opening.find_device(0)


def test_a_number_that_no_gpu_has(monkeypatch):
    monkeypatch.setattr(cuda_driver, "driver", lambda: Driver(13000))
    monkeypatch.setattr(cuda_driver, "devices", lambda: [gpu_bundles.H100])
    with pytest.raises(ValueError, match="no device cuda:1; this process has cuda:0: NVIDIA H100"):
        opening.find_device(1)
    assert opening.find_device(0) == (gpu_bundles.H100, 1)
