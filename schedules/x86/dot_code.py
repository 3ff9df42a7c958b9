"""Dot products of words on x86, as LLVM functions over whole vectors.

A lane of 32 bits holds four bytes or two bfloat16. One call multiplies a word of data, the same in every
lane, by a vector of words of the filter, and adds the products of a lane to its accumulator.

    AVX512_VNNI, AVX_VNNI    vpdpbusd   4 multiply-adds a lane
    AVX512_BF16              vdpbf16ps  2; subnormal numbers count as zero
    AVX-512, AVX2, SSE4.2    pmaddwd    2, of 16 bits, and an addition: bytes are widened before, the filter
                             when it is packed, data when it is copied. pmaddubsw, which needs no widening,
                             saturates: wrong for 255 * 127 + 255 * 127

TVM 0.27's own intrinsic "dot_16x4_vnni" does not compile: LLVM 22 wants vectors of bytes for vpdpbusd.
"""

from __future__ import annotations

from tvmconv.hardware import Machine
from tvmconv.problem.rules import BYTE_DTYPES

_Row = tuple[str, str, int, str, str]

# %a: words of data, %w: words of the filter, %c: accumulators; the last value is the result.
_DOT = """
declare <{n} x {sum}> @{llvm}(<{n} x {sum}>, {operand}, {operand})
define linkonce_odr <{n} x {sum}> @{function}(<{n} x {sum}> %c, <{n} x i32> %a, <{n} x i32> %w) {{
  %x = bitcast <{n} x i32> %a to {operand}
  %y = bitcast <{n} x i32> %w to {operand}
  %s = call <{n} x {sum}> @{llvm}(<{n} x {sum}> %c, {operand} %x, {operand} %y)
  ret <{n} x {sum}> %s
}}
"""
# Words of two numbers of 16 bits.
_PMADDWD = """
declare <{n} x i32> @{llvm}(<{halves} x i16>, <{halves} x i16>)
define linkonce_odr <{n} x i32> @{function}(<{n} x i32> %c, <{n} x i32> %a, <{n} x i32> %w) {{
  %x = bitcast <{n} x i32> %a to <{halves} x i16>
  %y = bitcast <{n} x i32> %w to <{halves} x i16>
  %p = call <{n} x i32> @{llvm}(<{halves} x i16> %x, <{halves} x i16> %y)
  %s = add <{n} x i32> %c, %p
  ret <{n} x i32> %s
}}
"""
# One product a lane: data is widened to 32 bits, the filter's 16 bits lie in the lower half of a lane.
_VPDPWSSD = """
declare <{n} x i32> @{llvm}(<{n} x i32>, <{halves} x i16>, <{halves} x i16>)
define linkonce_odr <{n} x i32> @{function}(<{n} x i32> %c, <{n} x i8> %a, <{n} x i32> %w) {{
  %b = {extend} <{n} x i8> %a to <{n} x i32>
  %x = bitcast <{n} x i32> %b to <{halves} x i16>
  %y = bitcast <{n} x i32> %w to <{halves} x i16>
  %s = call <{n} x i32> @{llvm}(<{n} x i32> %c, <{halves} x i16> %x, <{halves} x i16> %y)
  ret <{n} x i32> %s
}}
"""
_PMADDWD_ADD = """
declare <{n} x i32> @{llvm}(<{halves} x i16>, <{halves} x i16>)
define linkonce_odr <{n} x i32> @{function}(<{n} x i32> %c, <{n} x i8> %a, <{n} x i32> %w) {{
  %b = {extend} <{n} x i8> %a to <{n} x i32>
  %x = bitcast <{n} x i32> %b to <{halves} x i16>
  %y = bitcast <{n} x i32> %w to <{halves} x i16>
  %p = call <{n} x i32> @{llvm}(<{halves} x i16> %x, <{halves} x i16> %y)
  %s = add <{n} x i32> %c, %p
  ret <{n} x i32> %s
}}
"""
# Instruction, CPU feature, vector bytes, template, LLVM's name for it; the first that a machine has.
_BYTES = (
    ("vpdpbusd", "avx512_vnni", 64, _DOT, "llvm.x86.avx512.vpdpbusd.512"),
    ("vpdpbusd", "avx512_vnni", 32, _DOT, "llvm.x86.avx512.vpdpbusd.256"),
    ("vpdpbusd", "avx_vnni", 32, _DOT, "llvm.x86.avx512.vpdpbusd.256"),
    ("vpdpbusd", "avx_vnni", 16, _DOT, "llvm.x86.avx512.vpdpbusd.128"),
    ("pmaddwd", "avx512bw", 64, _PMADDWD, "llvm.x86.avx512.pmaddw.d.512"),
    ("pmaddwd", "avx2", 32, _PMADDWD, "llvm.x86.avx2.pmadd.wd"),
    ("pmaddwd", "sse4_2", 16, _PMADDWD, "llvm.x86.sse2.pmadd.wd"),
)
_BFLOAT16 = (
    ("vdpbf16ps", "avx512_bf16", 64, _DOT, "llvm.x86.avx512bf16.dpbf16ps.512"),
    ("vdpbf16ps", "avx512_bf16", 32, _DOT, "llvm.x86.avx512bf16.dpbf16ps.256"),
)
_PRODUCTS = (
    ("vpdpwssd", "avx512_vnni", 64, _VPDPWSSD, "llvm.x86.avx512.vpdpwssd.512"),
    ("vpdpwssd", "avx512_vnni", 32, _VPDPWSSD, "llvm.x86.avx512.vpdpwssd.256"),
    ("vpdpwssd", "avx_vnni", 32, _VPDPWSSD, "llvm.x86.avx512.vpdpwssd.256"),
    ("vpdpwssd", "avx_vnni", 16, _VPDPWSSD, "llvm.x86.avx512.vpdpwssd.128"),
    ("pmaddwd_add", "avx512bw", 64, _PMADDWD_ADD, "llvm.x86.avx512.pmaddw.d.512"),
    ("pmaddwd_add", "avx2", 32, _PMADDWD_ADD, "llvm.x86.avx2.pmadd.wd"),
    ("pmaddwd_add", "sse4_2", 16, _PMADDWD_ADD, "llvm.x86.sse2.pmadd.wd"),
)


def vector_sizes(dtype: str, machine: Machine) -> list[int]:
    """Lanes of the vectors that the machine has a dot product for: whole registers, then halves."""
    whole = machine.cpu.vector_bytes
    return [
        size // 4
        for size in (whole, whole // 2)
        if any(row[1] in machine.features and row[2] == size for row in _rows(dtype))
    ]


def operand(dtype: str, machine: Machine) -> str:
    """The kind of number that bytes are turned into, before or while they are copied."""
    usable = [row[0] for row in _rows(dtype) if row[1] in machine.features]
    return "int16" if usable[:1] == ["pmaddwd"] else "uint8"


def dot(dtype: str, machine: Machine, lanes: int) -> tuple[str, str] | None:
    """Return the name and the definition of the dot product for data of ``dtype``, None if there is none.

    It takes accumulators, words of data and words of the filter, ``lanes`` of each, and returns the sums.
    """
    return _function(_rows(dtype), dtype, machine, lanes)


def multiply_add(dtype: str, machine: Machine, lanes: int) -> tuple[str, str] | None:
    """Return the same of one product a lane; None for what needs no function, as float32."""
    return _function(_PRODUCTS, dtype, machine, lanes) if dtype in BYTE_DTYPES else None


def _function(
    rows: tuple[_Row, ...], dtype: str, machine: Machine, lanes: int
) -> tuple[str, str] | None:
    for instruction, feature, size, template, llvm in rows:
        if feature in machine.features and size == 4 * lanes:
            name = f"tvmconv_{instruction}_{dtype}_{lanes}"
            half = dtype == "bfloat16"
            return name, template.format(
                n=lanes,
                halves=2 * lanes,
                sum="float" if half else "i32",
                operand=f"<{2 * lanes} x bfloat>" if half else f"<{4 * lanes} x i8>",
                function=name,
                llvm=llvm,
                extend="zext" if dtype == "uint8" else "sext",
            )
    return None


def _rows(dtype: str) -> tuple[_Row, ...]:
    return _BYTES if dtype in BYTE_DTYPES else _BFLOAT16 if dtype == "bfloat16" else ()
