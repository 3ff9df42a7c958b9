"""Instruction words of AArch64's extensions, as an assembler makes them."""

import importlib.util
import subprocess
import sys

import pytest

from tvmconv.building import extensions

# Every instruction with the extension that it belongs to; the same operation without one below.
INSTRUCTIONS = {
    "asimddp": "sdot v0.4s, v1.16b, v2.16b; udot v0.2s, v1.8b, v2.8b; sdot v0.4s, v1.16b, v2.4b[3]; "
    "udot v31.4s, v30.16b, v29.4b[0]",
    "i8mm": "smmla v0.4s, v1.16b, v2.16b; ummla v0.4s, v1.16b, v2.16b; usmmla v0.4s, v1.16b, v2.16b; "
    "usdot v0.4s, v1.16b, v2.16b; usdot v0.4s, v1.16b, v2.4b[1]; sudot v0.2s, v1.8b, v2.4b[3]",
    "bf16": "bfdot v0.4s, v1.8h, v2.8h; bfmmla v0.4s, v1.8h, v2.8h; bfmlalb v0.4s, v1.8h, v2.8h; "
    "bfmlalt v0.4s, v1.8h, v2.8h; bfdot v0.4s, v1.8h, v2.2h[1]; bfmlalt v0.4s, v1.8h, v2.h[7]; "
    "bfcvt h0, s1; bfcvtn v0.4h, v1.4s; bfcvtn2 v0.8h, v1.4s",
    "asimdhp": "fmla v0.8h, v1.8h, v2.8h; fadd v0.4h, v1.4h, v2.4h; fmaxnm v0.8h, v1.8h, v2.8h; "
    "fdiv v0.8h, v1.8h, v2.8h; fmla v0.8h, v1.8h, v2.h[3]; fmls v0.4h, v1.4h, v2.h[7]; "
    "fmul v0.8h, v1.8h, v2.h[0]; fmulx v0.8h, v1.8h, v2.h[0]; fabs v0.8h, v1.8h; fsqrt v0.8h, v1.8h; "
    "frintn v0.8h, v1.8h; scvtf v0.8h, v1.8h; fcvtzs v0.8h, v1.8h; fcmgt v0.8h, v1.8h, #0.0; "
    "fcmeq v0.8h, v1.8h, v2.8h; fmaxv h0, v1.8h; fminnmv h0, v1.4h; faddp v0.8h, v1.8h, v2.8h; "
    "faddp h0, v1.2h; fmaxp h0, v1.2h; fmov v0.8h, #1.0; scvtf v0.8h, v1.8h, #3; fcvtzu v0.4h, v1.4h, #5; "
    "fmla h0, h1, v2.h[5]; frecpe h0, h1; fmulx h0, h1, h2; fcmge h0, h1, h2",
    "fphp": "fadd h0, h1, h2; fmadd h0, h1, h2, h3; fnmsub h0, h1, h2, h3; fabs h0, h1; fsqrt h0, h1; "
    "frinta h0, h1; fcmp h0, h1; fcmp h0, #0.0; fcsel h0, h1, h2, eq; fmov h0, #2.0; fmov h0, w1; "
    "fcvtzs w0, h1; ucvtf h0, x1; fmaxnm h0, h1, h2; scvtf h0, w1, #3",
    "asimdfhm": "fmlal v0.4s, v1.4h, v2.4h; fmlsl2 v0.2s, v1.2h, v2.2h; fmlal2 v0.4s, v1.4h, v2.h[3]; "
    "fmlsl v0.4s, v1.4h, v2.h[7]; fmlal v0.4s, v1.4h, v2.h[0]; fmlsl2 v0.4s, v1.4h, v2.h[1]",
    "asimdrdm": "sqrdmlah v0.4s, v1.4s, v2.4s; sqrdmlsh v0.8h, v1.8h, v2.8h; sqrdmlah v0.4s, v1.4s, v2.s[1]; "
    "sqrdmlsh v0.8h, v1.8h, v2.h[7]; sqrdmlah s0, s1, s2",
    "fcma": "fcmla v0.4s, v1.4s, v2.4s, #90; fcadd v0.4s, v1.4s, v2.4s, #270; "
    "fcmla v0.4s, v1.4s, v2.s[1], #180; fcmla v0.2d, v1.2d, v2.2d, #0",
    "sha3": "eor3 v0.16b, v1.16b, v2.16b, v3.16b; bcax v0.16b, v1.16b, v2.16b, v3.16b",
    "lrcpc": "ldapr w0, [x1]; ldapr x0, [x1]; ldaprb w0, [x1]",
    "atomics": "ldadd w0, w1, [x2]; swpal x0, x1, [x2]; cas w0, w1, [x2]; casal x0, x1, [x2]; "
    "casp x0, x1, x2, x3, [x4]; ldsetb w0, w1, [x2]; stadd w0, [x1]",
    "crc32": "crc32b w0, w1, w2; crc32cx w0, w1, x2",
    "sve": "fmla z0.s, p0/m, z1.s, z2.s; ld1w {z0.s}, p0/z, [x0]; ptrue p0.s; cntw x0; whilelt p0.s, x0, x1; "
    "addvl sp, sp, #-1; st1w {z0.s}, p0, [x0, x1, lsl #2]",
    "sme": "fmopa za0.s, p0/m, p1/m, z0.s, z1.s; zero {za}",
}
# What every AArch64 CPU has, near in its encoding to what not every one has.
PLAIN = """
fmla v0.4s, v1.4s, v2.4s; fmla v0.4s, v1.4s, v2.s[1]; fmla v0.2d, v1.2d, v2.d[1];
fmul v0.4s, v1.4s, v2.s[3]; fmla s0, s1, v2.s[1]; fmulx d0, d1, v2.d[1]; fmadd s0, s1, s2, s3;
fmadd d31, d30, d29, d28; fmul d0, d1, d24; fmul s0, s1, s24; fadd d0, d1, d30;
fmax v0.4s, v1.4s, v2.4s; fmaxnmv s0, v1.4s; faddp v0.4s, v1.4s, v2.4s; faddp s0, v1.2s;
fcvtl v0.4s, v1.4h; fcvtl2 v0.4s, v1.8h; fcvtn v0.4h, v1.4s; fcvt s0, h1; fcvt d0, h1; fcvt h0, s1;
fcvt h0, d1; scvtf v0.4s, v1.4s; scvtf v0.4s, v1.4s, #7; scvtf s0, w1; fcvtzs w0, s1; scvtf d0, x1, #9;
scvtf d0, w1, #31; fcvtzs w0, d1, #5; fmov v0.4s, #1.0; fmov v0.2d, #2.0; fmov s0, w1; fmov d0, x1;
fmov s0, #1.0; fcmp s0, s1; fcsel s0, s1, s2, eq; fabs v0.4s, v1.4s; fsqrt d0, d1; frintn v0.4s, v1.4s;
frecpe v0.4s, v1.4s; fcmge v0.4s, v1.4s, v2.4s; fabd s0, s1, s2; movi v0.4s, #3; mvni v0.8h, #1;
orr v0.8h, #1; mla v0.4s, v1.4s, v2.4s; mla v0.4s, v1.4s, v2.s[1]; mls v0.8h, v1.8h, v2.h[5];
mul v0.8h, v1.8h, v2.h[0]; smull v0.4s, v1.4h, v2.4h; smlal v0.4s, v1.4h, v2.h[3];
umlal2 v0.4s, v1.8h, v2.h[3]; sqdmulh v0.4s, v1.4s, v2.4s; sqrdmulh v0.4s, v1.4s, v2.s[1];
umlsl v0.2d, v1.2s, v2.s[3]; smlsl2 v0.2d, v1.4s, v2.s[1]; sqdmlal v0.4s, v1.4h, v2.h[1];
saddlv h0, v1.8b; smaxv h0, v1.8h; umaxv b0, v1.16b; addv s0, v1.4s; uminv h0, v1.4h;
addp v0.4s, v1.4s, v2.4s; sshr v0.4s, v1.4s, #3; shl v0.8h, v1.8h, #2; ushll v0.4s, v1.4h, #0;
sqshrn v0.8b, v1.8h, #3; ext v0.16b, v1.16b, v2.16b, #4; tbl v0.16b, {v1.16b}, v2.16b;
zip1 v0.4s, v1.4s, v2.4s; trn2 v0.2d, v1.2d, v2.2d; dup v0.4s, v1.s[2]; dup v0.8h, w1;
ins v0.s[1], v1.s[2]; umov w0, v1.s[3]; ld1 {v0.4s, v1.4s}, [x0], #32; ld1r {v0.4s}, [x0];
st1 {v0.s}[1], [x0]; ldr q0, [x0, #16]; ldp q0, q1, [x0]; stp q0, q1, [sp, #-32]!; ldr h0, [x0];
ldrb w0, [x1, x2]; ldur q0, [x0, #-7]; ldar w0, [x1]; stlr w0, [x1]; ldxr w0, [x1]; stxr w0, w1, [x2];
ldaxp x0, x1, [x2]; ldaxr x0, [x1]; stlxrb w0, w1, [x2]; prfm pldl1keep, [x0]; madd x0, x1, x2, x3;
umulh x0, x1, x2; udiv w0, w1, w2; lsl w0, w1, w2; adrp x0, .; bl .; ret; cbz x0, .;
csel x0, x1, x2, lt; ubfx w0, w1, #3, #5; rbit w0, w1; clz x0, x1; mrs x0, tpidr_el0; dmb ish; hint #34;
svc #0; nop
"""


@pytest.fixture(scope="module")
def assembled(tmp_path_factory):
    """A function from assembly to the bytes of its code, by the assembler that is in ziglang."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("no assembler: pip install 'tvmconv[cross]'")
    from elftools.elf.elffile import ELFFile

    folder = tmp_path_factory.mktemp("assembled")

    def assemble(text):
        source, made = folder / "code.s", folder / "code.o"
        source.write_text(f".arch armv8.6-a+sve+sme+sha3+fp16+fp16fml+bf16+i8mm\n{text}\n")
        subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu", "-c",
             str(source), "-o", str(made)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        with open(made, "rb") as file:
            return ELFFile(file).get_section_by_name(".text").data()

    return assemble


@pytest.mark.parametrize("extension", INSTRUCTIONS)
def test_each_instruction_of_an_extension_is_seen(assembled, extension):
    text = INSTRUCTIONS[extension]
    code = assembled(text)
    names = text.split(";")

    assert len(code) == 4 * len(names)
    found = {name.strip(): extensions.used(code[4 * n : 4 * n + 4]) for n, name in enumerate(names)}
    assert found == dict.fromkeys(found, frozenset({extension}))


def test_what_every_cpu_has_is_no_extension(assembled):
    code = assembled(PLAIN)
    names = PLAIN.strip().rstrip(";").split(";")

    assert len(code) == 4 * len(names)
    found = {name.strip(): extensions.used(code[4 * n : 4 * n + 4]) for n, name in enumerate(names)}
    assert found == dict.fromkeys(found, frozenset())


def test_every_pattern_has_an_instruction():
    assert set(INSTRUCTIONS) == set(extensions._PATTERNS)
