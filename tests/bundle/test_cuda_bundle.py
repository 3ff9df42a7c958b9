"""Bundles with GPU variants: what is in them, what is checked, which one a GPU gets, what the CPU sees."""

from __future__ import annotations

import dataclasses
import json

import gpu_bundles
import numpy as np
import pytest
from gpu_bundles import A100, B200, EMPTY, H100, H200, PLAIN, RTX_3090, SPLIT, T4, V100

import tvmconv
from tvmconv import hardware
from tvmconv.building import cross, elf, linked
from tvmconv.building.cuda import fatbin
from tvmconv.bundle import gpu_variants, reading, variants
from tvmconv.bundle import manifest as bundle
from tvmconv.commands.cli import main
from tvmconv.errors import BuildError, BundleError, IncompatibleMachineError, UnknownNameError
from tvmconv.hardware import cuda_driver, host


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return gpu_bundles.build(tmp_path_factory.mktemp("gpu"), ["toy-75", "host", "toy-90"])


@pytest.fixture(scope="module")
def manifest(built):
    return bundle.read_manifest(built)


@gpu_bundles.needs_compiler
def test_cpu_variants_come_first_then_the_newest_gpu(manifest):
    assert [variant.gpu for variant in manifest.variants] == [None, "sm_90", "sm_75"]


@gpu_bundles.needs_compiler
def test_a_gpu_variant_has_machine_code_for_its_architecture_and_the_cuda_runtime(built, manifest):
    with bundle.open_folder(built) as folder:
        reading.read_files(folder, manifest.variants[1])
    for variant in manifest.variants[1:]:
        code = fatbin.device_code((built / variant.library).read_bytes())
        assert code == fatbin.DeviceCode(frozenset([variant.gpu]), frozenset([variant.gpu]))
        assert variant.cuda_runtime.file == f"libtvm_runtime_cuda-{host.architecture()}.so"
        assert (variant.architecture, variant.features) == (host.architecture(), ())
        needed = elf.needs(built / variant.cuda_runtime.file)
        assert variants.has_glibc(needed.glibc, variant.glibc)
    assert manifest.variants[0].cuda_runtime is None


@gpu_bundles.needs_compiler
def test_kernels_say_how_much_workspace_they_need(manifest):
    kernels = manifest.variants[1].kernels

    assert kernels[SPLIT.key].workspace == 4 * 5 * 5 * 16
    assert kernels[SPLIT.key].pack is None
    assert kernels[PLAIN.key].workspace == 0
    assert kernels[PLAIN.key].pack.shape == (4, 3, 3, 8, 4)
    assert kernels[EMPTY.key].symbol is None


@gpu_bundles.needs_compiler
def test_a_gpu_variant_in_the_bundle_leaves_the_cpu_its_own(built):
    library = tvmconv.load(built)
    x = np.ones(PLAIN.input_shape, np.float32)
    w = np.ones(PLAIN.filter_shape, np.float32)

    y = library[PLAIN](x, w, np.full(PLAIN.bias_shape, -1, np.float32))

    assert library.variant.gpu is None
    assert y[0, 2, 2, 0] == 71


@gpu_bundles.needs_compiler
def test_a_cpu_never_takes_a_gpu_variant(manifest):
    cpu = (host.architecture(), host.cpu_features(), host.operating_system())
    alone = dataclasses.replace(manifest, variants=manifest.variants[1:])

    with pytest.raises(
        IncompatibleMachineError, match=r'toy-90 is for GPUs of sm_90.*device="cuda"'
    ):
        variants.choose(alone, *cpu, glibc=host.glibc())
    with pytest.raises(IncompatibleMachineError, match=r'device="cuda"'):
        variants.choose(manifest, *cpu, machine="toy-75", glibc=host.glibc())


@gpu_bundles.needs_compiler
def test_a_damaged_cuda_runtime_is_found(built, manifest, tmp_path):
    for file in built.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with open(tmp_path / manifest.variants[1].cuda_runtime.file, "r+b") as file:
        file.write(b"X")

    with bundle.open_folder(tmp_path) as folder:
        reading.read_files(folder, manifest.variants[0])
        with pytest.raises(BundleError, match=r"libtvm_runtime_cuda.*truncated or altered"):
            reading.read_files(folder, manifest.variants[1])


@gpu_bundles.needs_compiler
def test_inspect_shows_gpu_and_workspace(built, capsys):
    assert main(["inspect", str(built)]) == 0
    out = capsys.readouterr().out

    assert "machine code for sm_90, PTX for newer ones" in out
    assert "1600 bytes of workspace" in out
    if cuda_driver.driver() is None:
        assert "lacks a GPU of sm_90 or newer" in out
    assert main(["inspect", str(built), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)["variants"]
    assert [variant["gpu"] for variant in described] == [None, "sm_90", "sm_75"]


@gpu_bundles.needs_compiler
def test_code_for_another_architecture_is_refused(built, manifest):
    library = built / manifest.variants[1].library

    with pytest.raises(
        BuildError, match=r"machine code for sm_90 and PTX for sm_90.*both must be for sm_80"
    ):
        linked.check_device_code(library, hardware.find_machine("sm_80")[0])
    # What TVM would leave there without a CUDA runtime: no device code at all.
    with pytest.raises(BuildError, match="machine code for none"):
        linked.check_device_code(
            built / manifest.variants[0].library, hardware.find_machine("sm_90")[0]
        )


@gpu_bundles.needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(
    host.architecture() == "aarch64" or cross.linker("aarch64") is None, reason="no ARM linker here"
)
def test_a_jetson_gets_a_host_part_for_arm(tmp_path):
    path = gpu_bundles.build(tmp_path, "toy-87", [PLAIN])
    (variant,) = bundle.read_manifest(path).variants

    assert (variant.architecture, variant.gpu) == ("aarch64", "sm_87")
    for file, _ in variant.files:
        assert elf.needs(path / file).architecture == "aarch64"


def variant(machine, gpu, **changes):
    runtime = bundle.RuntimeEntry("libtvm_runtime-x86_64.so", "1" * 64)
    fields = {
        "machine": machine,
        "architecture": "x86_64",
        "os": "linux",
        "library": f"{machine}.so",
        "sha256": "0" * 64,
        "features": (),
        "glibc": "2.28",
        "runtime": runtime,
        "kernels": {},
        "gpu": gpu,
        "cuda_runtime": runtime if gpu else None,
    }
    return bundle.Variant(**{**fields, **changes})


def choose(manifest, device, machine=None, architecture="x86_64", glibc="2.36"):
    return gpu_variants.choose(manifest, device, architecture, (), machine=machine, glibc=glibc)


def bundle_of(*variants):
    return bundle.Manifest("2026-11-23T00:00:00", "0.1", "0.27", "0.1.14", (), variants)


ALL = bundle_of(
    variant("haswell", None),
    variant("sm_90", "sm_90"),
    variant("h200", "sm_90"),
    variant("sm_80", "sm_80"),
    variant("sm_75", "sm_75"),
)


@pytest.mark.parametrize(
    ("device", "machine"),
    [
        (T4, "sm_75"),
        (A100, "sm_80"),
        (RTX_3090, "sm_80"),  # machine code for 8.0 runs on 8.6
        (H100, "sm_90"),
        (H200, "h200"),
        (B200, "sm_90"),  # by its PTX
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_gpu_gets_the_newest_variant_that_runs_there(device, machine):
    assert choose(ALL, device).machine == machine


def test_machine_code_comes_before_ptx_of_a_newer_number():
    both = bundle_of(variant("sm_75", "sm_75"), variant("sm_80", "sm_80"))

    assert choose(both, H100).machine == "sm_80"
    assert not gpu_variants.has_machine_code("sm_80", H100)
    assert gpu_variants.has_machine_code("sm_80", RTX_3090)
    assert not gpu_variants.has_machine_code("sm_89", RTX_3090)


def test_a_gpu_that_is_too_old_is_told_what_is_there_and_what_to_build():
    with pytest.raises(IncompatibleMachineError) as caught:
        choose(ALL, T4, machine="sm_90")
    message = str(caught.value)
    assert "Tesla T4, sm_75" in message
    assert "sm_90 needs a GPU of sm_90 or newer, this one is sm_75" in message
    assert "--machine sm_75" in message

    with pytest.raises(IncompatibleMachineError, match="haswell is for CPUs"):
        choose(ALL, V100)
    with pytest.raises(UnknownNameError, match="no variant 'a100'"):
        choose(ALL, A100, machine="a100")


def test_the_host_must_suit_too():
    with pytest.raises(
        IncompatibleMachineError, match="is for x86_64 linux, this process is aarch64"
    ):
        choose(ALL, H100, architecture="aarch64")
    with pytest.raises(IncompatibleMachineError, match=r"needs glibc 2\.28"):
        choose(ALL, H100, glibc="2.17")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cuda_runtime": None}, "gpu without cuda_runtime"),
        ({"gpu": "hopper"}, "not like sm_90"),
        ({"kernels": {"a": bundle.KernelEntry("a", "s", {}, workspace=-1)}}, "workspace below 0"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_not_written(tmp_path, changes, message):
    keys = tuple(changes.get("kernels", {}))
    altered = dataclasses.replace(variant("sm_90", "sm_90"), **changes)
    wrong = dataclasses.replace(bundle_of(altered), keys=keys)

    with pytest.raises(BundleError, match=message):
        bundle.write_manifest(tmp_path, wrong)
