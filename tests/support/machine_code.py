"""Finds the loop of an assembly text that does the work, and counts its instructions by kind.

Reads what LLVM writes for x86-64 (AT&T syntax) and AArch64, and what cuobjdump shows of NVIDIA's code.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

MULTIPLY_ADDS = "multiply-adds"
STACK_STORES, STACK_LOADS = "stores to the stack", "loads from the stack"
KINDS = (
    MULTIPLY_ADDS,
    f"{MULTIPLY_ADDS} of a load",
    f"{MULTIPLY_ADDS} of a broadcast",
    f"{MULTIPLY_ADDS} from the stack",
    "loads",
    "broadcasts",
    "stores",
    STACK_STORES,
    STACK_LOADS,
    "other",
)

_MULTIPLY_ADD = re.compile(
    # x86: FMA; words of bytes and of bfloat16; AMX.
    r"vfn?m(add|sub)\d+[ps][sdh]|v?pmaddu?b?s?w[ds]?|vpdp\w+|vdpbf16ps|tdp\w+"
    # AArch64
    r"|fml[as]|[su]?ml[as]l?2?|(s|u|us|su)dot|(s|u|us)mmla|bf(dot|mmla|mlal[bt])"
    # NVIDIA; IMAD computes addresses
    r"|[FD]FMA|HFMA2|[HI]MMA|[HIQ]GMMA|IDP"
)
_BROADCAST = re.compile(r"vp?broadcast\w+|v?movddup|ld1r|dup")
_SASS_LOADS = ("LD", "LDG", "LDS", "LDSM", "LDGSTS")
_SASS_STORES = ("ST", "STG", "STS", "RED", "ATOM", "ATOMG", "ATOMS")


@dataclass(frozen=True)
class Instruction:
    """One instruction; ``name`` is the mnemonic without NVIDIA's predicate and suffixes."""

    name: str
    operands: str

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        if self.name.isupper():
            constant = "RZ, RZ" in self.operands  # HFMA2 as a move
            return "other" if constant else _sass_kind(self.name)
        return _cpu_kind(self.name, self.operands)


def _sass_kind(name: str) -> str:
    if _MULTIPLY_ADD.fullmatch(name):
        return MULTIPLY_ADDS
    local = {"STL": STACK_STORES, "LDL": STACK_LOADS}
    memory = dict.fromkeys(_SASS_LOADS, "loads") | dict.fromkeys(_SASS_STORES, "stores")
    return (local | memory).get(name, "other")


def _cpu_kind(name: str, operands: str) -> str:
    on_stack = "(%rsp" in operands or "[sp" in operands
    if _MULTIPLY_ADD.fullmatch(name):
        if on_stack:
            return f"{MULTIPLY_ADDS} from the stack"
        if "(" not in operands:
            return MULTIPLY_ADDS
        return f"{MULTIPLY_ADDS} of a {'broadcast' if '{1to' in operands else 'load'}"
    if name.startswith(("lea", "nop", "prf")) or "prefetch" in name:
        return "other"
    reads, writes = _memory(name, operands)
    if on_stack and (reads or writes):
        return STACK_STORES if writes else STACK_LOADS
    if _BROADCAST.fullmatch(name):
        return "broadcasts"
    return "stores" if writes else "loads" if reads else "other"


def _memory(name: str, operands: str) -> tuple[bool, bool]:
    """Whether an instruction reads memory, and whether it writes it."""
    if "[" in operands:  # AArch64
        return name.startswith("ld"), name.startswith("st")
    *_, last = re.split(r",\s*(?![^(]*\))", operands)  # AT&T syntax names the destination last
    compared = name.startswith(("cmp", "test", "vucomis"))
    return "(" in operands, "(" in last and not compared


_LINE = re.compile(
    r"^(?P<label>[.\w$]+):"
    r"|^\s+/\*(?P<address>[0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?(?P<sass>[A-Z][A-Z0-9]*)(?P<rest>[^;]*);"
    r"|^\t+(?:\{\w+\}\t)?(?P<name>[a-z][\w.]*)(?:\t(?P<operands>.*))?$"
    r"|^\s+(?P<function>Function : \S+)",
    re.MULTILINE,
)
_TARGET = re.compile(r"(\.LBB\w+)$|^\s*(?:U?P\w+,\s*)?0x([0-9a-f]+)\s*$")


def _items(text: str) -> Iterator[str | Instruction]:
    """Labels, which are strings, and instructions, in their order."""
    for line in _LINE.finditer(text):
        if line["label"]:
            yield line["label"]
        elif line["function"]:
            yield line["function"]  # addresses start anew
        elif line["address"]:
            yield f"0x{int(line['address'], 16):x}"
            yield Instruction(line["sass"], line["rest"].strip())
        else:
            yield Instruction(line["name"], (line["operands"] or "").partition("#")[0].strip())


def instructions(text: str) -> list[Instruction]:
    """All instructions of a text."""
    return [item for item in _items(text) if isinstance(item, Instruction)]


def innermost_loops(text: str) -> list[list[Instruction]]:
    """From the label that a later branch goes back to up to the last such branch, without a loop inside."""
    labels: dict[str, int] = {}
    found: list[Instruction] = []
    ends: dict[int, int] = {}
    for item in _items(text):
        if isinstance(item, str):
            if item.startswith("Function"):
                labels.clear()
            labels[item] = len(found)
            continue
        found.append(item)
        target = _target(item)
        if target in labels:
            ends[labels[target]] = len(found)
    return [
        found[begin:end]
        for begin, end in ends.items()
        if not any(begin <= b and e <= end and (b, e) != (begin, end) for b, e in ends.items())
    ]


def _target(instruction: Instruction) -> str | None:
    """The label that an instruction may go to; None where it is no branch."""
    if not re.fullmatch(r"j\w+|b(\.\w+)?|cbn?z|tbn?z|BRA", instruction.name):
        return None
    target = _TARGET.search(instruction.operands)
    return target and (target[1] or f"0x{int(target[2], 16):x}")


def called(text: str) -> list[str]:
    """Functions that a text calls, or ends with, each once and without the way to them."""
    return sorted(
        {
            each.operands.removesuffix("@PLT")
            for each in instructions(text)
            if each.name in ("callq", "jmp", "bl", "b") and re.match(r"\w", each.operands)
        }
    )


def count(loop: list[Instruction]) -> Counter[str]:
    """Instructions of each of `KINDS`."""
    return Counter(instruction.kind for instruction in loop)


def multiply_adds(loop: list[Instruction]) -> int:
    """Multiply-adds, dot products and matrix products, wherever their operands are."""
    return sum(number for kind, number in count(loop).items() if kind.startswith(MULTIPLY_ADDS))


def hot_loop(text: str) -> list[Instruction]:
    """The innermost loop with the most multiply-adds, weighted by their share of its instructions.

    Weighted, because Winograd's transforms, which run less often, have as many as its product, among others.
    Where no loop has any, as in a copy, that of the most loads and stores; all instructions without a loop.
    """

    def work(loop: list[Instruction]) -> tuple[float, int]:
        kinds = count(loop)
        return multiply_adds(loop) ** 2 / len(loop), kinds["loads"] + kinds["stores"]

    loops = [loop for loop in innermost_loops(text) if any(work(loop))]
    return max(loops, key=work) if loops else instructions(text)


def described(loop: list[Instruction]) -> str:
    """A line for each kind that there is: how many, and by what instructions."""
    names: dict[str, Counter[str]] = {}
    for instruction in loop:
        names.setdefault(instruction.kind, Counter())[instruction.name] += 1
    lines = [f"{len(loop)} instructions"]
    for kind in KINDS:
        if kind in names:
            by_name = sorted(names[kind].items(), key=lambda item: (-item[1], item[0]))
            each = ", ".join(f"{number} {name}" for name, number in by_name)
            lines.append(f"{names[kind].total():6} {kind}: {each}")
    return "\n".join(lines)
