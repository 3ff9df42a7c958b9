"""Building for another architecture: what it needs, and what is said where that is missing."""

import dataclasses
import shutil
import zipfile

import boards
import pytest

import tvmconv
from tvmconv import errors, hardware
from tvmconv.building import builder, cross, elf, linked, toolchain
from tvmconv.hardware import host
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import choice

SPEC = ConvSpec.conv2d((1, 5, 5, 8), (3, 3, 8, 16))
HALF = ConvSpec.conv2d((1, 5, 5, 8), (3, 3, 8, 16), dtype="float16")

pytestmark = pytest.mark.skipif(
    host.architecture() == "aarch64", reason="aarch64 is this machine's own architecture"
)


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without any linker for ARM; what is put into the returned folder is on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    found = cross.importlib.util.find_spec
    monkeypatch.setattr(
        cross.importlib.util, "find_spec", lambda name: None if name == "ziglang" else found(name)
    )
    return folder


@pytest.fixture
def no_runtime(monkeypatch, tmp_path):
    """An empty cache, and a pip that reaches nothing; returns the folder of the runtime."""
    monkeypatch.setenv("TVMCONV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    return tmp_path / "cache" / "runtime" / toolchain.tvm_version() / "aarch64"


def executable(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_without_a_linker_the_package_is_named(bare, tmp_path):
    (bare / "g++").symlink_to(shutil.which("true", path="/bin:/usr/bin"))
    with pytest.raises(errors.MissingToolError) as caught:
        tvmconv.build([SPEC], "raspberry-pi-4", tmp_path / "kernels", logs=[])
    assert "pip install 'tvmconv[cross]'" in str(caught.value)
    assert "apt install gcc-aarch64-linux-gnu" in str(caught.value)
    assert not (tmp_path / "kernels").exists()


def test_a_gcc_for_the_architecture_comes_before_zig(monkeypatch, tmp_path):
    gcc = tmp_path / "aarch64-linux-gnu-gcc"
    executable(gcc, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert cross.linker("aarch64") == [str(gcc)]
    assert str(gcc) in cross.check_linker("aarch64").found


def test_a_linker_that_fails_is_quoted(bare, tmp_path):
    executable(bare / "aarch64-linux-gnu-gcc", "echo cannot find crti.o >&2; exit 1")
    with pytest.raises(errors.BuildError, match=r"cannot find crti\.o.*tvmconv doctor"):
        cross.link_for("aarch64")(str(tmp_path / "a.so"), [])


def test_an_architecture_that_nothing_is_known_of(monkeypatch):
    with pytest.raises(errors.BuildError) as caught:
        cross.require("riscv64", "spacemit-k1")
    text = str(caught.value)
    assert "no apache-tvm wheel for riscv64 to take libtvm_runtime.so from" in text
    assert "build on a machine that is riscv64" in text
    cross.require(host.architecture(), "this machine")


def test_offline_the_command_that_fetches_the_runtime_is_named(no_runtime):
    with pytest.raises(errors.MissingToolError) as caught:
        cross.runtime_library("aarch64")
    assert (
        "pip download --no-deps --only-binary=:all: --platform manylinux_2_28_aarch64 "
        f"apache-tvm=={toolchain.tvm_version()} --dest {no_runtime}" in str(caught.value)
    )


def test_a_wheel_that_was_brought_there_is_used(no_runtime):
    no_runtime.mkdir(parents=True)
    with zipfile.ZipFile(no_runtime / "apache_tvm-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tvm/lib/libtvm_runtime.so", b"library")
    path = cross.runtime_library("aarch64")
    assert path.read_bytes() == b"library"
    assert cross.runtime_library("aarch64") == path


def test_a_damaged_wheel_is_named(no_runtime):
    no_runtime.mkdir(parents=True)
    (no_runtime / "apache_tvm-1-py3-none-any.whl").write_bytes(b"half a file")
    with pytest.raises(errors.MissingToolError, match=r"apache_tvm-1-py3-none-any\.whl is damaged"):
        cross.runtime_library("aarch64")
    assert [file.suffix for file in no_runtime.iterdir()] == [".whl"]


def compiled(machine, spec, path):
    """A kernel library for a machine that is not here."""
    boards.require_linker()
    _, pack = hardware.find_machine("cortex-a72")
    made = choice.choose(spec, machine, pack, [])
    function = made.schedule.apply(spec, machine, made.decisions)
    builder.compile_library({spec.key: function}, machine, path)
    return path


@pytest.mark.slow
def test_what_a_library_needs_is_read_from_it(tmp_path):
    machine, _ = hardware.find_machine("cortex-a76")
    single = elf.needs(compiled(machine, SPEC, tmp_path / "single.so"))
    half = elf.needs(compiled(machine, HALF, tmp_path / "half.so"))

    assert (single.architecture, half.architecture) == ("aarch64", "aarch64")
    assert not single.features & {"asimdhp", "sve", "asimddp"}
    assert half.features <= set(machine.features)


@pytest.mark.slow
def test_code_that_the_machines_features_do_not_cover_is_refused(tmp_path, monkeypatch):
    machine, pack = hardware.find_machine("cortex-a72")
    target = {**machine.target, "mcpu": "neoverse-v1"}  # has SVE and half precision
    machine = dataclasses.replace(machine, name="mistaken", target=target)
    made = choice.choose(HALF, machine, pack, [])
    request = builder.Request(machine, pack, {HALF.key: made})
    boards.require_linker()
    with pytest.raises(errors.BuildError, match=r"kernels for mistaken use .*features do not list"):
        builder.build_requests([HALF], [request], tmp_path / "kernels")
    assert not (tmp_path / "kernels").exists()


def test_other_files_are_no_libraries(tmp_path):
    (tmp_path / "text.so").write_text("not one")
    with pytest.raises(errors.BuildError, match=r"text\.so is no shared library"):
        elf.needs(tmp_path / "text.so")


def test_a_library_for_another_architecture_is_refused(tmp_path):
    machine, _ = hardware.find_machine("cortex-a72")
    library = toolchain.runtime_library()  # of this machine
    with pytest.raises(errors.BuildError, match=f"is for {host.architecture()}, not for aarch64"):
        linked.checked_glibc(machine, [library], library)


def test_this_machines_own_runtime_needs_a_glibc_that_is_here():
    found = elf.needs(toolchain.runtime_library())
    assert found.architecture == host.architecture()
    assert elf.newest([found.glibc, host.glibc()]) == host.glibc()
    assert elf.newest(["2.4", "2.17", "2.9"]) == "2.17"
    assert elf.newest([]) is None
