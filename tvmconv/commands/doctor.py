"""Check what works on this machine, and say what to install for the rest.

The exit code is 0 if kernels can be built and run here; what only tuning, cross-compiling or GPUs
need is reported too.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import platform
import shutil
import signal
import subprocess
import sys

from tvmconv import hardware, writing
from tvmconv.building import cross, toolchain
from tvmconv.building.cuda import tools as cuda_tools
from tvmconv.building.toolchain import Check
from tvmconv.commands.show import tables
from tvmconv.errors import (
    INSTALL_COMPILER,
    HardwarePackError,
    MissingToolError,
    RecordError,
    TvmconvError,
)
from tvmconv.hardware import cuda_driver, host
from tvmconv.measuring.simulate import cycles
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import choice, log
from tvmconv.version import __version__

_SPEC = ConvSpec.conv2d((1, 5, 5, 8), (3, 3, 8, 16), bias=True, activation="relu")
# In a process of its own: the wrong version of a library does not raise, it crashes.
_TRY_KERNEL = "from tvmconv.commands import doctor; doctor.try_kernel()"
_TRY_SECONDS = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print all checks; 1 when something that building or running kernels needs is not in order."""
    checks = all_checks()
    failed = [check for check in checks if not check.ok and is_essential(check)]
    if args.json:
        tables.show_json(
            {
                "ok": not failed,
                "checks": [
                    {**dataclasses.asdict(check), "essential": is_essential(check)}
                    for check in checks
                ],
            }
        )
        return 1 if failed else 0
    tables.show_table(
        ("", "check", "found", "needed for"),
        [(_state(check), check.name, check.found, check.needed_for) for check in checks],
    )
    for check in checks:
        if not check.ok and check.remedy:
            print(f"\n{_state(check)}: {check.name}, for {check.needed_for}: {check.remedy}")
    print(f"\n{_verdict(failed)}")
    return 1 if failed else 0


def _verdict(failed: list[Check]) -> str:
    if not failed:
        return "Kernels can be built and run here."
    if any(check.needed_for == "everything" for check in failed):
        return "Nothing works here before what FAILED is mended."
    return "Bundles may run here; building kernels needs what FAILED to be mended."


def is_essential(check: Check) -> bool:
    """Tell whether building or running kernels fails without this."""
    return check.needed_for == "everything" or "build" in check.needed_for


def all_checks() -> list[Check]:
    """Look at everything, in the order in which one would mend it."""
    tools = toolchain.checks()
    machine = _check_machine()
    ready = machine.ok and all(check.ok for check in tools if is_essential(check))
    return [
        *_versions(),
        *tools,
        machine,
        *([_check_kernel()] if ready else []),
        *([_check_records()] if machine.ok else []),
        *_check_packs(),
        *_check_cross(),
        *_check_boards(),
        *_check_gpus(),
    ]


def _state(check: Check) -> str:
    if check.ok:
        return "ok"
    return "FAILED" if is_essential(check) else "absent"


def _versions() -> list[Check]:
    system = f"{platform.system()} {platform.release()}, {host.architecture()}"
    python = f"{platform.python_version()}, {sys.executable}"
    return [
        Check("tvmconv", True, __version__, "everything"),
        Check("system", True, system, "everything"),
        Check("Python", True, python, "everything"),
        _check_package("numpy", "everything"),
        _check_package("ml_dtypes", "bfloat16"),
        _check_package("filelock", "tvmconv.conv2d"),
        _check_package("platformdirs", "tvmconv.conv2d"),
    ]


def _check_package(name: str, needed_for: str, extra: str = "") -> Check:
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        package = f"'tvmconv[{extra}]'" if extra else name
        return Check(name, False, "not installed", needed_for, f"pip install {package}")
    return Check(name, True, found, needed_for)


def _check_machine() -> Check:
    cores = f"{host.cpu_name()}, {host.available_cores()} cores for this process"
    try:
        name = hardware.detect().name
    except HardwarePackError as error:
        return Check("machine", False, cores, "build for host", str(error))
    return Check("machine", True, f"{name}: {cores}{missing_for_wider()}", "build for host")


def missing_for_wider() -> str:
    """Say what this CPU lacks for the nearest machine with wider vectors; nothing where there is none.

    A virtual machine that hides one flag, such as fma, costs all of AVX2.
    """
    here, pack = hardware.find_machine("host")
    features = host.cpu_features()
    wider = [
        (sorted(set(machine.features) - features), machine.name)
        for machine in pack.machines
        if machine.architecture == here.architecture
        and machine.gpu is None
        and machine.cpu.vector_bytes > here.cpu.vector_bytes
    ]
    if not wider:
        return ""
    missing, name = min(wider, key=lambda each: len(each[0]))
    return f"; for {name}, with wider vectors, it lacks {', '.join(missing)}"


def _check_packs() -> list[Check]:
    """Return one check for each hardware pack that cannot be loaded."""
    _, broken = hardware.working_packs()
    return [
        Check(f"hardware pack {name}", False, "cannot be loaded", "its machines", message)
        for name, message in broken.items()
    ]


def _check_kernel() -> Check:
    def failed(found: str, remedy: str) -> Check:
        return Check("a kernel", False, found, "build, run", remedy)

    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRY_KERNEL],
            capture_output=True,
            text=True,
            timeout=_TRY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return failed(
            f"not done after {_TRY_SECONDS} s", "look for what else keeps this machine busy"
        )
    if done.returncode == 0:
        return Check("a kernel", True, "built, loaded, and computes right", "build, run")
    if done.returncode < 0:
        return failed(
            f"crashed: {signal.Signals(-done.returncode).name}",
            f"install the versions that work together: {INSTALL_COMPILER}",
        )
    reason = (done.stderr.strip() or "no message").splitlines()[-1]
    return failed("does not work", reason)


def try_kernel() -> None:
    """Build, load and check one small kernel; exit with a message when something goes wrong."""
    from tvmconv import runtime
    from tvmconv.building import builder
    from tvmconv.commands import verify

    try:
        with writing.scratch("tvmconv-doctor-") as folder:
            path = builder.build(_SPEC, "host", folder / "kernel.tvmconv", logs=[])
            failure = verify.check(runtime.load(path)[_SPEC]).failure
    except TvmconvError as error:
        failure = " ".join(str(error).split())
    if failure:
        sys.exit(failure)


def _check_records() -> Check:
    """Read every tuning record for this machine, and see whether its schedule still knows it."""
    machine, pack = hardware.find_machine("host")
    count = 0
    for folder in log.default_directories():
        for file in sorted((folder / machine.name).glob("*.jsonl")):
            try:
                for entry in log.read_log(file):
                    spec = ConvSpec.from_key(entry.record.key)
                    choice.choose(spec, machine, pack, [folder])
                    count += 1
            except RecordError as error:
                return Check("tuning records", False, str(file), "build", str(error))
    return Check("tuning records", True, f"{count} for {machine.name}", "build")


def _check_cross() -> list[Check]:
    """Two checks for each other architecture that bundles can be built for here."""
    _, *others = cross.architectures()
    return [
        check
        for architecture in others
        for check in (cross.check_linker(architecture), cross.check_runtime(architecture))
    ]


def _check_boards() -> list[Check]:
    """What boards over a network, simulated cores and emulated boards need."""
    return [
        *(_check_package(name, "TVM's RPC tracker", "rpc") for name in ("tornado", "cloudpickle")),
        _check_package("unicorn", "simulating ARM cores", "simulate"),
        _check_llvm_mca(),
        _check_qemu(),
    ]


def _check_llvm_mca() -> Check:
    needed_for = "predicting cycles of ARM cores"
    try:
        return Check("llvm-mca", True, cycles.tools()[1], needed_for)
    except MissingToolError:
        remedy = "version 18 or newer (Debian 12, Ubuntu 24.04: apt install llvm-19)"
        return Check("llvm-mca", False, "none on PATH", needed_for, remedy)


def _check_qemu() -> Check:
    found = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    remedy = (
        "Debian, Ubuntu: apt install qemu-user-static; scripts/emulated_board unpacks its own "
        "without"
    )
    return Check("qemu", found is not None, found or "none on PATH", "emulated ARM boards", remedy)


def _check_gpus() -> list[Check]:
    """What building and running for NVIDIA GPUs needs; the driver and its devices come last."""
    return [cuda_tools.check_compiler(), cuda_tools.check_cudart(), _check_driver()]


def _check_driver() -> Check:
    library = cuda_driver.driver()
    if library is None:
        return Check("NVIDIA driver", False, "no NVIDIA driver", "running on NVIDIA GPUs")
    major, minor = cuda_driver.driver_release(library)
    try:
        found = cuda_driver.devices()
    except MissingToolError as error:
        return Check("NVIDIA driver", False, "does not work", "running on NVIDIA GPUs", str(error))
    listed = ", ".join(map(str, found)) or "shows no GPU"
    return Check(
        "NVIDIA driver",
        bool(found) and (major, minor) >= (13, 0),
        f"for CUDA {major}.{minor}; {listed}",
        "running on NVIDIA GPUs",
        "install driver 580 or newer; `nvidia-smi` lists the GPUs that it sees",
    )
