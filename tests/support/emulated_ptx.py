"""Makes calls of C++ functions from the inline PTX of device code, for emulated_gpu.h.

``asm volatile("mma.sync.X {%0, %1}, %2;" : "+f"(d[0]), "+f"(d[1]) : "r"(a))`` becomes
``ptx::mma_sync_X(ptx::list(d[0], d[1]), a)``, with the instruction's name and its operands in their order.
One for which there is no function does not compile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ASM = re.compile(r"\basm(?:\s+volatile)?\s*\(")
_OPERAND = re.compile(r'"[=+]?[a-z]+"\s*\((.*)\)\s*', re.S)
_FORCED = "static __device__ __forceinline__"


def translated(code: str, arch: str) -> str:
    """CUDA C++ for g++, as it is for a compute capability: ``sm_90``."""
    result, at = [], 0
    for found in _ASM.finditer(code):
        end = _closing(code, found.end())
        result += [code[at : found.start()], _call(code[found.end() : end])]
        at = end + 1
    text = "".join(result) + code[at:]
    # Inlined everywhere, g++ takes minutes.
    text = text.replace(_FORCED, "static").replace("__CUDA_ARCH__", "EMULATED_ARCH")
    return f"#undef EMULATED_ARCH\n#define EMULATED_ARCH {arch.removeprefix('sm_')}0\n{text}"


def _closing(code: str, at: int) -> int:
    depth = 1
    while depth:
        depth += {"(": 1, ")": -1}.get(code[at], 0)
        at += 1
    return at - 1


def _call(inside: str) -> str:
    sections = list(_split(inside, ":"))
    template = "".join(re.findall(r'"([^"]*)"', sections[0]))
    values = [
        _OPERAND.fullmatch(operand.strip())[1]
        for section in sections[1:3]
        for operand in _split(section, ",")
        if operand.strip()
    ]
    name, _, rest = template.strip().removesuffix(";").partition(" ")
    operands = [_operand(text.strip(), values) for text in _split(rest, ",") if text.strip()]
    return f"ptx::{re.sub(r'[.:]+', '_', name)}({', '.join(operands)})"


def _operand(text: str, values: list[str]) -> str:
    if text.startswith("{"):
        listed = ", ".join(_operand(each.strip(), values) for each in text[1:-1].split(","))
        return f"ptx::list({listed})"
    if text.startswith("["):
        return _operand(text[1:-1], values)
    return values[int(text[1:])] if text.startswith("%") else text


def _split(text: str, separator: str) -> Iterator[str]:
    """Parts between separators that stand outside of brackets and quotes; ``::`` is two."""
    depth, quoted, part = 0, False, ""
    for character in text:
        quoted ^= character == '"'
        if not quoted:
            depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(character, 0)
        if character == separator and not depth and not quoted:
            yield part
            part = ""
        else:
            part += character
    yield part
