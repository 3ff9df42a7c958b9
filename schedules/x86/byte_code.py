"""Sums to bytes on x86, as LLVM functions over the channels of a tile: `compute.epilogue`, packed.

Four vectors of sums become one of bytes. Each is converted, multiplied, held below the highest number and
rounded; pairs are packed to 16 bits, the zero point is added, two of those are packed to bytes, both with
saturation, and held above the lowest. Packing interleaves lanes of 128 bits, which one permutation of words
undoes. For 64 channels of AVX-512 these are 4 * 4 + 8 instructions; of the plain expression LLVM makes 36.
"""

from __future__ import annotations

from tvmconv.hardware import Machine
from tvmconv.lowering.runs import power_of_two_runs
from tvmconv.problem.spec import ConvSpec

# Packing of pairs of vectors of so many bytes, of 32 bits and of 16.
_PACK = {
    64: "llvm.x86.avx512.{}.512",
    32: "llvm.x86.avx2.{}",
    16: "llvm.x86.sse2.{}.128",
}
_ROUND = {
    64: (
        "declare <16 x i32> @llvm.x86.avx512.mask.cvtps2dq.512(<16 x float>, <16 x i32>, i16, i32)\n",
        "call <16 x i32> @llvm.x86.avx512.mask.cvtps2dq.512(<16 x float> {}, <16 x i32> zeroinitializer, "
        "i16 -1, i32 4)",
    ),
    32: (
        "declare <8 x i32> @llvm.x86.avx.cvt.ps2dq.256(<8 x float>)\n",
        "call <8 x i32> @llvm.x86.avx.cvt.ps2dq.256(<8 x float> {})",
    ),
}


def to_bytes(spec: ConvSpec, machine: Machine, lanes: int) -> tuple[str, str] | None:
    """Return what functions for the runs of so many channels are called, and their definitions.

    Each takes sums with their bias, scales, and as int32 the zero point, the lowest and the highest byte.
    None for specs that are not quantised, without the instructions, and for channels that are no whole
    vectors.
    """
    size = 64 if "avx512bw" in machine.features else 32 if "avx2" in machine.features else 0
    if spec.quantized is None or not size or lanes % 8 or not lanes:
        return None
    name, declared = f"tvmconv_to_{spec.quantized}", dict[str, None]()
    counts = sorted({end - begin for begin, end in power_of_two_runs(lanes)})
    functions = [_Writer(spec.quantized, n, declared).definition(name, size) for n in counts]
    return name, "\n" + "".join((*declared, *functions))


class _Writer:
    """Writes the function of a power of two lanes, from 8 on, a line for each value."""

    def __init__(self, out: str, lanes: int, declared: dict[str, None]) -> None:
        self.out, self.lanes, self.declared = out, lanes, declared
        self.lines: list[str] = []

    def definition(self, name: str, size: int) -> str:
        self.lines = [
            "%top = sub i32 %high, %zero",
            "%topf = sitofp i32 %top to float",
            "%bottom = sub i32 %low, %zero",
            "%bottomf = sitofp i32 %bottom to float",
            "%zero16 = trunc i32 %zero to i16",
            "%low8 = trunc i32 %low to i8",
        ]
        n, size = self.lanes, min(size, 4 * self.lanes)
        vectors = [self.scaled(begin, size) for begin in range(0, n, size // 4)]
        made = self.packed(vectors, size) if len(vectors) > 1 else self.narrowed(vectors[0], size)
        body = "".join(f"  {line}\n" for line in self.lines)
        return (
            f"define linkonce_odr <{n} x i8> @{name}_{n}(<{n} x i32> %sums, "
            f"<{n} x float> %scales, i32 %zero, i32 %low, i32 %high) {{\n{body}"
            f"  ret <{n} x i8> {made}\n}}\n"
        )

    def value(self, text: str) -> str:
        name = f"%v{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        return name

    def call(self, kind: str, function: str, *operands: str) -> str:
        """Of a function of operands of one type."""
        given, result = kind.split(" -> ") if " -> " in kind else (kind, kind)
        self.declared[f"declare {result} @{function}({', '.join([given] * len(operands))})\n"] = (
            None
        )
        arguments = ", ".join(f"{given} {each}" for each in operands)
        return self.value(f"call {result} @{function}({arguments})")

    def splat(self, kind: str, scalar: str, count: int) -> str:
        one = self.value(f"insertelement <{count} x {kind}> poison, {kind} {scalar}, i32 0")
        return self.shuffled(f"<{count} x {kind}>", one, one, [0] * count)

    def shuffled(self, kind: str, a: str, b: str, order: list[int]) -> str:
        at = ", ".join(f"i32 {each}" for each in order)
        return self.value(f"shufflevector {kind} {a}, {kind} {b}, <{len(order)} x i32> <{at}>")

    def scaled(self, begin: int, size: int) -> str:
        """A vector of sums as floats below the highest number, by their scales."""
        n, run = size // 4, list(range(begin, begin + size // 4))
        sums = self.shuffled(f"<{self.lanes} x i32>", "%sums", "poison", run)
        scales = self.shuffled(f"<{self.lanes} x float>", "%scales", "poison", run)
        floats = self.value(f"sitofp <{n} x i32> {sums} to <{n} x float>")
        product = self.value(f"fmul <{n} x float> {floats}, {scales}")
        return self.chosen("olt", product, "%topf", n)

    def chosen(self, order: str, value: str, bound: str, n: int) -> str:
        """The lower or the higher of a vector and a number."""
        splat = self.splat("float", bound, n)
        holds = self.value(f"fcmp {order} <{n} x float> {value}, {splat}")
        return self.value(
            f"select <{n} x i1> {holds}, <{n} x float> {value}, <{n} x float> {splat}"
        )

    def rounded(self, value: str, size: int) -> str:
        declaration, call = _ROUND[size]
        self.declared[declaration] = None
        return self.value(call.format(value))

    def packed(self, vectors: list[str], size: int) -> str:
        """The bytes of two or four vectors of ``size`` bytes."""
        n, quads = size // 4, size // 16  # lanes of 128 bits hold four sums
        words = [self.rounded(each, size) for each in vectors]
        halves = []
        for a, b in zip(words[::2], words[1::2], strict=True):
            kind = f"<{n} x i32> -> <{2 * n} x i16>"
            pair = self.call(kind, _PACK[size].format("packssdw"), a, b)
            zeros = self.splat("i16", "%zero16", 2 * n)
            halves.append(self.call(f"<{2 * n} x i16>", f"llvm.sadd.sat.v{2 * n}i16", pair, zeros))
        if len(halves) == 2:
            order = [4 * quad + vector for vector in range(4) for quad in range(quads)]
        else:  # the two halves of the one pair
            size, middle = size // 2, quads // 2
            halves = [
                self.shuffled(
                    f"<{2 * n} x i16>", halves[0], "poison", list(range(first, first + n))
                )
                for first in (0, n)
            ]
            order = [
                4 * (quad % middle) + 2 * (quad // middle) + vector
                for vector in range(2)
                for quad in range(quads)
            ]
        pack = _PACK[size].format("packsswb" if self.out == "int8" else "packuswb")
        packed = self.call(f"<{size // 2} x i16> -> <{size} x i8>", pack, *halves)
        lowest = self.splat("i8", "%low8", size)
        highest = "smax" if self.out == "int8" else "umax"
        held = self.call(f"<{size} x i8>", f"llvm.{highest}.v{size}i8", packed, lowest)
        quads_ = self.value(f"bitcast <{size} x i8> {held} to <{size // 4} x i32>")
        sorted_ = self.shuffled(f"<{size // 4} x i32>", quads_, "poison", order)
        return self.value(f"bitcast <{size // 4} x i32> {sorted_} to <{size} x i8>")

    def narrowed(self, vector: str, size: int) -> str:
        """The bytes of one vector."""
        n = size // 4
        word = self.rounded(self.chosen("ogt", vector, "%bottomf", n), size)
        moved = self.value(f"add <{n} x i32> {word}, {self.splat('i32', '%zero', n)}")
        return self.value(f"trunc <{n} x i32> {moved} to <{n} x i8>")
