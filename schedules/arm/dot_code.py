"""Dot products of words on ARM, as LLVM functions over whole vectors.

A lane of 32 bits holds four bytes. One call multiplies a word of data, the same in every lane, by a vector
of words of the filter, and adds the four products of a lane to its accumulator:

    asimddp    sdot    int8 x int8; uint8 data is made signed before (compute/conv2d_dot.py)
    i8mm       usdot   uint8 x int8, as it is
               smmla, usmmla   2 pixels x 8 bytes times 8 bytes x 2 channels (conv2d_matrix.py)

LLVM takes the word of data from its lane of a vector of four (``sdot v0.4s, v1.16b, v2.4b[3]``), where it
was loaded as one.
"""

from __future__ import annotations

from tvmconv.hardware import Machine
from tvmconv.problem.rules import BYTE_DTYPES

# As in conv2d_dot.py, of data that is made signed here: LLVM does it once for all uses of a word.
_TURN = """
  %z = xor <16 x i8> %x, splat (i8 -128)"""
# %a: words of data, %w: words of the filter, %c: accumulators. The operand that may be a lane is the
# second, of usdot the first.
_DOT = """
declare <4 x i32> @{llvm}(<4 x i32>, <16 x i8>, <16 x i8>)
define linkonce_odr <4 x i32> @{function}(<4 x i32> %c, <4 x i32> %a, <4 x i32> %w) {{
  %x = bitcast <4 x i32> %a to <16 x i8>
  %y = bitcast <4 x i32> %w to <16 x i8>{turn}
  %s = call <4 x i32> @{llvm}(<4 x i32> %c, <16 x i8> {operands})
  ret <4 x i32> %s
}}
"""
_WORDS = """
define linkonce_odr <32 x i8> @{function}(<8 x i8> %a, <8 x i8> %b, <8 x i8> %c, <8 x i8> %d) {{
  %ab = shufflevector <8 x i8> %a, <8 x i8> %b, <16 x i32> <{pairs}>
  %cd = shufflevector <8 x i8> %c, <8 x i8> %d, <16 x i32> <{pairs}>
  %x = bitcast <16 x i8> %ab to <8 x i16>
  %y = bitcast <16 x i8> %cd to <8 x i16>
  %w = shufflevector <8 x i16> %x, <8 x i16> %y, <16 x i32> <{pairs}>
  %r = bitcast <16 x i16> %w to <32 x i8>
  ret <32 x i8> %r
}}
"""
_MATRIX = """
declare <4 x i32> @{llvm}(<4 x i32>, <16 x i8>, <16 x i8>)
define linkonce_odr <4 x i32> @{function}(<4 x i32> %c, <8 x i8> %p, <8 x i8> %q, <16 x i8> %w) {{
  %a = shufflevector <8 x i8> %p, <8 x i8> %q, <16 x i32> <{order}>
  %s = call <4 x i32> @{llvm}(<4 x i32> %c, <16 x i8> %a, <16 x i8> %w)
  ret <4 x i32> %s
}}
"""
LANES = 4
WORDS_LANES = 8


def instruction(dtype: str, machine: Machine) -> str | None:
    """The instruction for data of ``dtype``, None where the machine has none."""
    if dtype == "uint8" and "i8mm" in machine.features:
        return "usdot"
    return "sdot" if dtype in BYTE_DTYPES and "asimddp" in machine.features else None


def operand(dtype: str, machine: Machine) -> str | None:
    """The kind of byte that data is turned into; None where the instruction takes what it is."""
    return "int8" if instruction(dtype, machine) == "sdot" else None


def dot(dtype: str, machine: Machine, turn: bool = False) -> tuple[str, str] | None:
    """Return the name and the definition of the dot product for data of ``dtype``, None if there is none.

    It takes accumulators, words of data and words of the filter, four of each, and returns the sums. With
    ``turn`` uint8 data is turned into the `operand`, otherwise it has been.
    """
    name = instruction(dtype, machine)
    if name is None:
        return None
    turned = turn and name == "sdot" and dtype == "uint8"
    function = f"tvmconv_{name}{'_turned' if turned else ''}_{LANES}"
    data = "%z" if turned else "%x"
    operands = f"{data}, <16 x i8> %y" if name == "usdot" else f"%y, <16 x i8> {data}"
    llvm = f"llvm.aarch64.neon.{name}.v4i32.v16i8"
    definition = _DOT.format(
        llvm=llvm, function=function, operands=operands, turn=_TURN if turned else ""
    )
    return function, definition


def words(dtype: str) -> tuple[str, str]:
    """Return the name and the definition of what makes eight words of four vectors of eight bytes.

    Three instructions: zip1 of the first two, of the last two, then zip1 and zip2 of their pairs; what two
    words share LLVM does once.
    """
    function = f"tvmconv_words_{WORDS_LANES}_{dtype}"
    pairs = ", ".join(f"i32 {at}, i32 {at + WORDS_LANES}" for at in range(WORDS_LANES))
    return function, _WORDS.format(function=function, pairs=pairs)


def matrix(dtype: str, machine: Machine) -> tuple[str, str] | None:
    """Return the name and the definition of 2 pixels x 8 bytes times 8 bytes x 2 channels, None without.

    It takes the four sums, eight bytes of each pixel, and the filter's sixteen bytes.
    """
    if not has_matrix(dtype, machine):
        return None
    name = "usmmla" if dtype == "uint8" else "smmla"
    order = ", ".join(f"i32 {at}" for at in range(16))
    llvm = f"llvm.aarch64.neon.{name}.v4i32.v16i8"
    return f"tvmconv_{name}", _MATRIX.format(llvm=llvm, function=f"tvmconv_{name}", order=order)


def has_matrix(dtype: str, machine: Machine) -> bool:
    """Whether the machine multiplies matrices of bytes."""
    return dtype in BYTE_DTYPES and "i8mm" in machine.features
