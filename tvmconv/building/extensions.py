"""Which extensions of AArch64 a piece of machine code uses, read from its instruction words.

Every instruction is one little-endian word of 32 bits, and LLVM keeps constants out of the code, so a
word that fits a pattern is that instruction. Patterns are from the encoding tables of the Arm
Architecture Reference Manual (DDI 0487), chapter C4; tests/building/test_extensions.py holds them against an
assembler.
Only extensions that compilers use for arithmetic on arrays are here, under /proc/cpuinfo's names.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Patterns = tuple[tuple[int, int], ...]  # (bits that are looked at, what they are), ...


def _vector_and_scalar(*patterns: tuple[int, int]) -> Patterns:
    """Patterns of instructions of vectors, and of the same ones of a single number in a vector register.

    Bit 28 tells them apart; bit 30 is a vector's length, and set for a single number.
    """
    vector = [(mask | 0x90000000, value) for mask, value in patterns]
    scalar = [(mask | 0xD0000000, value | 0x50000000) for mask, value in patterns]
    return (*vector, *scalar)


_PATTERNS: dict[str, Patterns] = {
    "sve": ((0x1E000000, 0x04000000),),
    "sme": ((0x9E000000, 0x80000000),),
    "asimddp": ((0x9FE0FC00, 0x0E809400), (0x9FC0F400, 0x0F80E000)),  # sdot, udot; by element
    "i8mm": (
        (0xDFE0FC00, 0x4E80A400),  # smmla, ummla
        (0xFFE0FC00, 0x4E80AC00),  # usmmla
        (0xBFE0FC00, 0x0E809C00),  # usdot
        (0xBF40F400, 0x0F00F000),  # usdot, sudot by element
    ),
    "bf16": (
        (0xBF60FC00, 0x2E40FC00),  # bfdot, bfmlalb, bfmlalt
        (0xFFE0FC00, 0x6E40EC00),  # bfmmla
        (0xBF40F400, 0x0F40F000),  # bfdot, bfmlal by element
        (0xFFFFFC00, 0x1E634000),  # bfcvt
        (0xBFFFFC00, 0x0EA16800),  # bfcvtn
    ),
    "asimdhp": (
        *_vector_and_scalar(
            (0x0F60C400, 0x0E400400),  # three registers
            (0x0F7E0C00, 0x0E780800),  # two registers
            (0x0FC0F400, 0x0F001000),  # fmla by element
            (0x0FC0F400, 0x0F005000),  # fmls
            (0x0FC0F400, 0x0F009000),  # fmul, fmulx
            (0x2F7FCC00, 0x0E30C800),  # across lanes; pairwise
            (0x0FF0FC00, 0x0F10E400),  # scvtf, ucvtf with fraction bits
            (0x0FF0FC00, 0x0F10FC00),  # fcvtzs, fcvtzu with fraction bits
        ),
        (0xBFF8FC00, 0x0F00FC00),  # fmov of a constant
    ),
    "fphp": ((0x7EC00000, 0x1EC00000),),
    "asimdfhm": (
        (0xBF60FC00, 0x0E20EC00),  # fmlal, fmlsl
        (0xBF60FC00, 0x2E20CC00),  # fmlal2, fmlsl2
        (0xBFC0B400, 0x0F800000),  # by element
        (0xBFC0B400, 0x2F808000),
    ),
    "asimdrdm": _vector_and_scalar((0x2F20F400, 0x2E008400), (0x2F00D400, 0x2F00D000)),
    "fcma": (
        (0xBF20E400, 0x2E00C400),  # fcmla
        (0xBF20EC00, 0x2E00E400),  # fcadd
        (0xBFC09400, 0x2F401000),  # fcmla by element, of halves
        (0xBFC09400, 0x2F801000),  # of floats
    ),
    "sha3": ((0xFFC08000, 0xCE000000),),  # eor3, bcax: also used for plain integer arithmetic
    "lrcpc": ((0x3FFFFC00, 0x38BFC000),),
    "atomics": (
        (0x3FA07C00, 0x08A07C00),  # cas
        (0xBFA07C00, 0x08207C00),  # casp
        (0x3F200C00, 0x38200000),  # ldadd, swp and so on
    ),
    "crc32": ((0x7FE0E000, 0x1AC04000),),
}
# What fits a pattern and is another instruction all the same.
_EXCEPTIONS: dict[str, Patterns] = {
    "fphp": ((0xFFFF7C00, 0x1EE24000),),  # fcvt from half precision, which every AArch64 has
    "atomics": _PATTERNS["lrcpc"],
}


def used(code: bytes) -> frozenset[str]:
    """Return the names of extensions of which ``code``, whole AArch64 instructions, has one."""
    words = np.unique(np.frombuffer(code, dtype="<u4", count=len(code) // 4))
    return frozenset(
        name
        for name, patterns in _PATTERNS.items()
        if (_fitting(words, patterns) & ~_fitting(words, _EXCEPTIONS.get(name, ()))).any()
    )


def _fitting(words: npt.NDArray[np.uint32], patterns: Patterns) -> npt.NDArray[np.bool_]:
    found = np.zeros(words.shape, dtype=np.bool_)
    for mask, value in patterns:
        found |= (words & np.uint32(mask)) == np.uint32(value)
    return found
