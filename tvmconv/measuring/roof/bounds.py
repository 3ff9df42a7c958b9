"""The least time that a kernel can take on a machine, by its multiply-adds alone."""

from __future__ import annotations

from tvmconv.errors import TvmconvError
from tvmconv.hardware import Decisions, HardwarePack, Machine
from tvmconv.problem.rules import BYTE_DTYPES
from tvmconv.problem.spec import ConvSpec

# How far two looks at the same machine differ: what is faster than the roof by more was not measured well.
MOST_OF_A_ROOF = 1.03
# Facts of cards are boost clocks, which some exceed.
_MOST_OF_FACTS = 1.25


class ImpossibleTimeError(TvmconvError):
    """A time that the machine's peak does not allow, also when it was measured again."""


def rate(machine: Machine, dtype: str) -> int:
    """Multiply-adds that a core does at most in the time of one in float32.

    A vector register holds so many times more bytes, and its instruction adds up products (VNNI, SDOT);
    matrix instructions (I8MM; AMX, 16 rows of 64 bytes in 16 cycles) do more.
    """
    if machine.gpu is not None:
        return 1  # `gpu.peak` knows the dtype
    amx = "amx_tile" in machine.features
    if dtype in BYTE_DTYPES:
        return 32 if amx else 8 if "i8mm" in machine.features else 4
    if dtype == "bfloat16":
        return 16 if amx else 4 if "bf16" in machine.features else 2
    return 2 if dtype == "float16" else 1


def work(
    spec: ConvSpec, schedule: str, decisions: Decisions, machine: Machine, pack: HardwarePack
) -> float:
    """Float32 operations that take as long, at the peak, as a kernel's multiply-adds.

    Taps in the padding are counted; Winograd's algorithm does fewer than the sum has. A schedule that is
    gone counts as the sum.
    """
    macs = spec.macs
    known = {each.name: each for each in pack.schedules}
    if schedule in known and known[schedule].winograd:
        macs = known[schedule].macs(spec, decisions)
    return 2 * macs / rate(machine, spec.dtype)


def percent(share: float) -> float | None:
    """A share of a roof in percent; None above it, where the roof is none for this kernel."""
    return None if share > MOST_OF_A_ROOF else 100 * share


def least_seconds(macs: int, dtype: str, machine: Machine, peak: float) -> float:
    """Seconds at the float32 ``peak`` (operations a second), or a GPU's of that dtype."""
    return 2 * macs / (peak * rate(machine, dtype))


def is_possible(seconds: float, least: float, machine: Machine) -> bool:
    """Whether a machine can be as fast, give or take what its peak is known to."""
    most = MOST_OF_A_ROOF if machine.gpu is None else _MOST_OF_FACTS
    return seconds * most >= least


def impossible(seconds: float, least: float) -> str:
    """What to say of a time that was measured twice."""
    return (
        f"a call seemed to take {seconds * 1e6:.3g} us, twice, and the machine's peak allows no less than "
        f"{least * 1e6:.3g} us: that is no time"
    )
