"""The reader of assembly texts, on texts short enough to count by hand."""

import machine_code

X86 = """
kernel:
\tmovq\t(%rdi), %rax
.LBB0_1:
\txorl\t%ecx, %ecx
.LBB0_2:
\tvbroadcastss\t4(%rax), %zmm0
\tvmovups\t64(%rax), %zmm1
\tvfmadd231ps\t%zmm0, %zmm1, %zmm2
\tvfmadd231ps\t64(%rax,%rcx), %zmm1, %zmm3
\tvfmadd231ps\t(%rax){1to16}, %zmm1, %zmm4
\tvfmadd231ps\t-64(%rsp), %zmm1, %zmm5
\tvmovups\t%zmm2, 128(%rsp)
\tvaddps\t128(%rsp), %zmm2, %zmm2
\tvmovups\t%zmm2, (%rdx,%rcx,4)
\tcmpq\t%rcx, (%rbx)
\tleaq\t(%rax,%rcx), %rax
\tprefetcht1\t(%rax)
\tjne\t.LBB0_2
\tjmp\t.LBB0_1
.LBB0_3:
\tjmp\tmemcpy@PLT
"""
ARM = """
\tmov\tx8, #4
.LBB1_1:
\tldp\tq0, q1, [x0], #32
\tld1r\t{ v2.4s }, [x1]
\tfmla\tv3.4s, v0.4s, v2.s[1]
\tstr\tq3, [sp, #16]
\tldr\tq3, [sp, #16]
\tstp\tq3, q0, [x2]
\tcbz\tx3, .LBB1_2
\tsubs\tx8, x8, #1
\tb.ne\t.LBB1_1
.LBB1_2:
\tret
"""
SASS = """
\tcode for sm_90
\t\tFunction : first_kernel
        /*0000*/                   FFMA R1, R2, R3, R1 ;      /* 0x0000000402037981 */
        /*0010*/                   BRA 0x10;                  /* 0x0000000402037981 */
\t\tFunction : second_kernel
        /*0000*/                   HFMA2.MMA R4, -RZ, RZ, 0, 0 ;
        /*0010*/              @!P0 LDS.128 R4, [R2] ;
                                                              /* 0x000fe20000000800 */
        /*0020*/                   HMMA.16816.F32 R1, R2, R3, R1 ;
        /*0030*/                   STL [R1], R4 ;
        /*0040*/               @P0 BRA 0x10 ;
        /*0050*/                   BRA 0x50;
"""


def kinds(text: str) -> dict[str, int]:
    return dict(machine_code.count(machine_code.hot_loop(text)))


def test_kinds_of_x86_instructions():
    assert kinds(X86) == {
        "multiply-adds": 1,
        "multiply-adds of a load": 1,
        "multiply-adds of a broadcast": 1,
        "multiply-adds from the stack": 1,
        "broadcasts": 1,
        "loads": 2,
        "stores": 1,
        "stores to the stack": 1,
        "loads from the stack": 1,
        "other": 3,
    }
    assert machine_code.multiply_adds(machine_code.hot_loop(X86)) == 4


def test_kinds_of_arm_instructions():
    assert kinds(ARM) == {
        "multiply-adds": 1,
        "loads": 1,
        "broadcasts": 1,
        "stores": 1,
        "stores to the stack": 1,
        "loads from the stack": 1,
        "other": 3,
    }


def test_addresses_of_nvidias_machine_code_start_anew_in_every_function():
    assert kinds(SASS) == {"multiply-adds": 1, "loads": 1, "stores to the stack": 1, "other": 1}
    assert machine_code.count(machine_code.instructions(SASS))["multiply-adds"] == 2


def test_only_the_innermost_loop_counts():
    assert len(machine_code.innermost_loops(X86)) == 1


def test_without_a_loop_every_instruction_counts():
    assert kinds("\tfmla\tv0.4s, v1.4s, v2.4s\n\tret\n") == {"multiply-adds": 1, "other": 1}


def test_what_is_called():
    assert machine_code.called(X86) == ["memcpy"]


def test_the_loop_that_is_mostly_multiply_adds_counts_not_the_longest():
    dense = "\tfmla\tv0.4s, v1.4s, v2.4s\n" * 8
    sparse = "\tfmla\tv0.4s, v1.4s, v2.4s\n\tfadd\tv0.4s, v1.4s, v2.4s\n" * 10
    loops = [f".LBB0_{n}:\n{body}\tb.ne\t.LBB0_{n}\n" for n, body in enumerate((sparse, dense))]

    assert len(machine_code.hot_loop("".join(loops))) == 9


def test_a_description_counts_by_kind_and_by_name():
    assert machine_code.described(machine_code.hot_loop(ARM)).splitlines()[:3] == [
        "9 instructions",
        "     1 multiply-adds: 1 fmla",
        "     1 loads: 1 ldp",
    ]
