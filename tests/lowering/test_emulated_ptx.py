"""Inline PTX as calls: names, operands and their order, and that nothing of a prelude is left over."""

from __future__ import annotations

import pytest
from emulated_ptx import translated

from tvmconv.lowering.cuda.prelude import PRELUDE

HEAD = "#undef EMULATED_ARCH\n#define EMULATED_ARCH 900\n"


@pytest.mark.parametrize(
    ("code", "call"),
    [
        (
            'asm volatile("mma.sync.m8n8 {%0, %1}, {%2}, %3;"'
            ' : "+f"(d[0]), "+f"(d[1]) : "r"(a(1, 2)), "r"(b));',
            "ptx::mma_sync_m8n8(ptx::list(d[0], d[1]), ptx::list(a(1, 2)), b);",
        ),
        ('asm("cvt.x %0, %0;" : "+r"(w[i]));', "ptx::cvt_x(w[i], w[i]);"),
        (
            'asm volatile("cp.async.ca "\n "[%0], [%1], 16, %2;"\n'
            ' :: "r"(s(to)), "l"(from), "n"(N) : "memory");',
            "ptx::cp_async_ca(s(to), from, 16, N);",
        ),
        ('asm volatile("bar.arrive;" ::: "memory");', "ptx::bar_arrive();"),
    ],
)
def test_an_instruction_becomes_a_call(code, call):
    assert translated(code, "sm_90") == HEAD + call


@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
def test_no_ptx_of_the_prelude_is_left(arch):
    code = translated(PRELUDE, arch)

    assert "asm" not in code
    assert "__CUDA_ARCH__" not in code
    assert code.count("ptx::mma_sync_aligned_") == 8  # five pairs of dtypes, three of Turing
