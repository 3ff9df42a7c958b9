"""Dot products of words on ARM, as LLVM functions over whole vectors.

A lane of 32 bits holds four bytes. One call multiplies a word of data, the same in every lane, by a vector
of words of the filter, and adds the four products of a lane to its accumulator:

    asimddp    sdot    int8 x int8; uint8 data is made signed before (compute/dot_conv2d.py)
    i8mm       usdot   uint8 x int8, as it is

LLVM takes the word of data from its lane of a vector of four (``sdot v0.4s, v1.16b, v2.4b[3]``), where it
was loaded as one.
"""

from __future__ import annotations

from tvmconv.hardware import Machine
from tvmconv.rules import BYTE_DTYPES

# %a: words of data, %w: words of the filter, %c: accumulators. The operand that may be a lane is the
# second, of usdot the first.
_DOT = """
declare <4 x i32> @{llvm}(<4 x i32>, <16 x i8>, <16 x i8>)
define linkonce_odr <4 x i32> @{function}(<4 x i32> %c, <4 x i32> %a, <4 x i32> %w) {{
  %x = bitcast <4 x i32> %a to <16 x i8>
  %y = bitcast <4 x i32> %w to <16 x i8>
  %s = call <4 x i32> @{llvm}(<4 x i32> %c, <16 x i8> {operands})
  ret <4 x i32> %s
}}
"""
LANES = 4


def instruction(dtype: str, machine: Machine) -> str | None:
    """The instruction for data of ``dtype``, None where the machine has none."""
    if dtype == "uint8" and "i8mm" in machine.features:
        return "usdot"
    return "sdot" if dtype in BYTE_DTYPES and "asimddp" in machine.features else None


def dot(dtype: str, machine: Machine) -> tuple[str, str] | None:
    """Return the name and the definition of the dot product for data of ``dtype``, None if there is none.

    It takes accumulators, words of data and words of the filter, four of each, and returns the sums.
    """
    name = instruction(dtype, machine)
    if name is None:
        return None
    function = f"tvmconv_{name}_{LANES}"
    operands = "%x, <16 x i8> %y" if name == "usdot" else "%y, <16 x i8> %x"
    llvm = f"llvm.aarch64.neon.{name}.v4i32.v16i8"
    return function, _DOT.format(llvm=llvm, function=function, operands=operands)
