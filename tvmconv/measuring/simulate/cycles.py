"""Predicted cycles: how often each block ran, times what LLVM's scheduling model says, and cache lines.

llvm-mca (Debian: apt install llvm-19) repeats a block in a model of the core's pipes, with all loads served
by the first-level cache. It knows nothing of caches, nor of what one block leaves to the next; what moves
between caches is added from counts. A prediction ranks kernels of one layer, and is no measurement.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections import Counter

from tvmconv.errors import BuildError, MissingToolError
from tvmconv.hardware import Machine
from tvmconv.measuring.simulate.caches import Traffic
from tvmconv.measuring.simulate.emulator import Block, Counts, is_multiply_add

# Cores whose name LLVM 19 gives the model of an older one; theirs is this. With its model of the A53 llvm-mca
# has results written in the order of the program (RetireOOO is not set): a load that follows a multiply-add
# waits six cycles. Arm has published no guide for the A53 to check that with; the A55's model lacks it.
_MODELS = {
    "cortex-a53": "cortex-a55",
    "cortex-a76": "neoverse-n1",
    "cortex-a78": "neoverse-n1",
    "generic": "cortex-a55",
}
# In order, and no vector arithmetic starts beside a load of 128 bits: XNNPACK's kernels for the A53 are made
# of loads of 64 bits for that.
_LOADS_BLOCK = ("cortex-a53",)
_REPEATED = 50
_VERSIONS = ("19", "20", "21", "18")
_EXPOSED = 0.3  # of the shorter one of computing and moving lines, what adds to the longer
_CHARGED = 1.0  # cycles an instruction of a function that is not simulated


def tools() -> tuple[str, str]:
    """The programs (llvm-mc, llvm-mca) of one LLVM; raises MissingToolError without."""
    for suffix in ("", *(f"-{version}" for version in _VERSIONS)):
        found = shutil.which(f"llvm-mc{suffix}"), shutil.which(f"llvm-mca{suffix}")
        if found[0] and found[1] and (suffix or _is_new(found[1])):
            return found[0], found[1]
    raise MissingToolError(
        "llvm-mca 18 or newer is needed to predict cycles, found: none on PATH. "
        "To mend it: apt install llvm-19 (Debian 12, Ubuntu 24.04)"
    )


def _is_new(program: str) -> bool:
    said = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=False
    ).stdout
    version = re.search(r"version (\d+)", said)
    return version is not None and int(version[1]) >= 18


def predict(counts: Counts, machine: Machine) -> float:
    """Return the predicted cycles of a simulated call on one core of ``machine``, caches left aside.

    Raises MissingToolError without llvm-mca, BuildError when it fails.
    """
    blocks = joined(counts.blocks)
    words = [counts.words(block) for block in blocks]
    # LLVM's Cortex-A55 starts two multiply-adds of 128 bits in a cycle, Arm's one.
    least = [sum(map(is_multiply_add, block)) / machine.cpu.fma_ports for block in words]
    if machine.name in _LOADS_BLOCK:
        least = [
            each + sum(map(wide_loads, block)) for each, block in zip(least, words, strict=True)
        ]
    costs = map(max, _throughputs(words, machine), least)
    called = counts.charged * _CHARGED
    return called + sum(times * cost for times, cost in zip(blocks.values(), costs, strict=True))


def wide_loads(word: int) -> int:
    """Registers of 128 bits that an LDR, LDUR or LDP loads (Arm ARM, C4.1)."""
    one = word & 0xFFC00000 == 0x3DC00000 or word & 0xFFE00000 in (0x3CC00000, 0x3CE00000)
    pair = word & 0xFE400000 == 0xAC400000
    return 2 if pair else int(one)


def transfers(traffic: Traffic, machine: Machine) -> float:
    """Return the cycles that a core needs for moving its lines, if it did nothing else."""
    second = traffic.second_level / machine.cpu.l2_bytes_per_cycle
    return second + traffic.memory / machine.cpu.memory_bytes_per_cycle


def with_caches(taken: float, traffic: Traffic | None, machine: Machine) -> float:
    """Return the cycles of a call that computes for ``taken`` cycles and moves lines meanwhile.

    The longer of the two, because out-of-order cores and their prefetchers do both at once; and three tenths
    of the shorter, because they do not do so perfectly (scripts/trust_simulation.py compares other shares).
    """
    if traffic is None:
        return taken
    moving = transfers(traffic, machine)
    return max(taken, moving) + _EXPOSED * min(taken, moving)


def joined(blocks: Counter[Block]) -> Counter[Block]:
    """Blocks of which one always follows the other, as one: the emulator cuts them where a page ends."""
    whole: Counter[Block] = Counter()
    start, size, times = 0, 0, 0
    for (address, length), count in sorted(blocks.items()):
        if size and start + size == address and count == times:
            size += length
            continue
        if size:
            whole[(start, size)] += times
        start, size, times = address, length, count
    if size:
        whole[(start, size)] += times
    return whole


def _throughputs(blocks: list[tuple[int, ...]], machine: Machine) -> list[float]:
    """Cycles of each block, repeated."""
    assemble, analyse = tools()
    name = str(machine.target["mcpu"])
    text = _disassembled(assemble, [word for block in blocks for word in block])
    regions, at = [], 0
    for number, block in enumerate(blocks):
        lines = text[at : at + len(block)]
        at += len(block)
        regions += [f"# LLVM-MCA-BEGIN {number}", *lines, f"# LLVM-MCA-END {number}"]
    command = [
        *(
            analyse,
            "-mtriple=aarch64",
            f"-mcpu={_MODELS.get(name, name)}",
            "-mattr=+fullfp16,+dotprod",
        ),
        *(f"-iterations={_REPEATED}", "-resource-pressure=0", "-instruction-info=0"),
    ]
    said = _run(command, "\n".join([*regions, ""]))
    found = [int(cycles) / _REPEATED for cycles in re.findall(r"Total Cycles:\s+(\d+)", said)]
    if len(found) != len(blocks):
        raise BuildError(f"llvm-mca analysed {len(found)} of {len(blocks)} blocks")
    return found


def _disassembled(program: str, words: list[int]) -> list[str]:
    """Every instruction as text, one a line."""
    content = " ".join(f"0x{byte:02x}" for word in words for byte in struct.pack("<I", word))
    said = _run([program, "-disassemble", "-triple=aarch64", "-mattr=+all"], content)
    lines = [line.strip() for line in said.splitlines()]
    found = [line for line in lines if line and not line.startswith(".")]
    if len(found) != len(words):
        raise BuildError(f"llvm-mc took {len(words)} instructions for {len(found)}")
    return found


def _run(command: list[str], text: str) -> str:
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(f"{' '.join(command)} failed: {result.stderr.strip()[:500]}")
    return result.stdout
