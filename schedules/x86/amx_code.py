"""AMX: an LLVM function that computes a tile of pixels x channels, all of its reduction, in tile registers.

A tile register has up to 16 rows of up to 64 bytes. Eight of them hold

    0 1   sums of the first half of the pixels (rows), 16 channels each (columns)     4   their data
    2 3   of the second half                                                          5   theirs
    6 7   words of the filter (rows) for 16 channels each (columns)

and one step multiplies 2 x 2 of them: 4 instructions of 16 cycles, 32 x 32 x 64 bytes = 65536 multiply-adds,
for 4 loads of 8 cycles. At most 1024 multiply-adds of bytes a cycle, 8 times VNNI's; 512 of bfloat16.

The number of pixels is free at run time: where it changes, another configuration is loaded. That takes 270
cycles, four steps' time, so a job keeps count of what is loaded. What a process must ask Linux for before it
touches a tile (tvmconv.hardware.host does, when a bundle is loaded) is asked for here too, by the first.

Measured, Sapphire Rapids, one core, 2026-11-23, from L1: a step takes 65 cycles, 91 where rows of data are
not aligned to 64 bytes; four instructions of 12, 8 and 4 rows 54, 41 and 38; storing four tiles 73.
"""

from __future__ import annotations

from tvmconv.hardware import Machine
from tvmconv.problem.rules import BYTE_DTYPES

COLUMNS = 16  # channels of a tile: 64 bytes of 32-bit sums
ROWS = 16  # pixels of a tile
_TILE_BYTES = 64

# Of the system call: result, its number and two arguments; what it destroys.
_REGISTERS = "={rax},{rax},{rdi},{rsi},~{rcx},~{r11},~{memory}"
_INSTRUCTIONS = {"uint8": "tdpbusd", "int8": "tdpbssd", "bfloat16": "tdpbf16ps"}

_PROLOGUE = """
@tvmconv_tiles_permitted = linkonce_odr global i8 0
declare void @llvm.x86.ldtilecfg(ptr)
declare void @llvm.x86.tilerelease()
declare void @llvm.x86.tilezero(i8)
declare void @llvm.x86.tileloadd64(i8, ptr, i64)
declare void @llvm.x86.tilestored64(i8, ptr, i64)
declare void @llvm.x86.{instruction}(i8, i8, i8)
define linkonce_odr i32 @{function}(ptr %loaded, ptr %c, ptr %a, ptr %w, i32 %n, i64 %ldc,
    i64 %lda, i64 %rows, i64 %row, i64 %columns, i64 %column, i64 %chunks, i64 %chunk, i64 %ldw,
    i64 %panel) {{
entry:
  %config = alloca <64 x i8>, align 64
  %half = lshr i32 %n, 1
  %r1 = call i32 @llvm.umax.i32(i32 %half, i32 1)
  %r0 = sub i32 %n, %half
  %start = sub i32 %n, %r1
  %second = zext i32 %start to i64
  %second_a = mul i64 %second, %lda
  %second_c = mul i64 %second, %ldc
  %before = load i32, ptr %loaded
  %same = icmp eq i32 %before, %n
  br i1 %same, label %begin, label %change
change:
  store i32 %n, ptr %loaded
  %permitted = load i8, ptr @tvmconv_tiles_permitted
  %known = icmp ne i8 %permitted, 0
  br i1 %known, label %configure, label %ask
ask:
  %answer = call i64 asm sideeffect "syscall", "{registers}"(i64 158, i64 4131, i64 18)
  store i8 1, ptr @tvmconv_tiles_permitted
  br label %configure
configure:
  %r0b = trunc i32 %r0 to i8
  %r1b = trunc i32 %r1 to i8
  store <64 x i8> zeroinitializer, ptr %config, align 64
  store i8 1, ptr %config
  %colsb = getelementptr i8, ptr %config, i64 16
  store <8 x i16> <{colsb}>, ptr %colsb
  %v0 = insertelement <8 x i8> <i8 0, i8 0, i8 0, i8 0, i8 0, i8 0, i8 {words}, i8 {words}>, i8 %r0b, i32 0
  %v1 = insertelement <8 x i8> %v0, i8 %r0b, i32 1
  %v2 = insertelement <8 x i8> %v1, i8 %r1b, i32 2
  %v3 = insertelement <8 x i8> %v2, i8 %r1b, i32 3
  %v4 = insertelement <8 x i8> %v3, i8 %r0b, i32 4
  %v5 = insertelement <8 x i8> %v4, i8 %r1b, i32 5
  %rowsb = getelementptr i8, ptr %config, i64 48
  store <8 x i8> %v5, ptr %rowsb
  call void @llvm.x86.ldtilecfg(ptr %config)
  br label %begin
begin:
  call void @llvm.x86.tilezero(i8 0)
  call void @llvm.x86.tilezero(i8 2)
{zeros}
  br label %row_loop
row_loop:
  %i = phi i64 [0, %begin], [%i1, %row_end]
  %ai = phi ptr [%a, %begin], [%ai1, %row_end]
  %wi = phi ptr [%w, %begin], [%wk1, %row_end]
  br label %column_loop
column_loop:
  %j = phi i64 [0, %row_loop], [%j1, %column_end]
  %aj = phi ptr [%ai, %row_loop], [%aj1, %column_end]
  %wj = phi ptr [%wi, %row_loop], [%wk1, %column_end]
  br label %chunk_loop
chunk_loop:
  %k = phi i64 [0, %column_loop], [%k1, %chunk_loop]
  %ak = phi ptr [%aj, %column_loop], [%ak1, %chunk_loop]
  %wk = phi ptr [%wj, %column_loop], [%wk1, %chunk_loop]
  %bk = getelementptr i8, ptr %ak, i64 %second_a
"""
_STEP = """
  call void @llvm.x86.tileloadd64(i8 4, ptr %ak, i64 %lda)
  call void @llvm.x86.tileloadd64(i8 6, ptr %wk, i64 %ldw)
  call void @llvm.x86.tileloadd64(i8 5, ptr %bk, i64 %lda)
  call void @llvm.x86.{instruction}(i8 0, i8 4, i8 6)
  call void @llvm.x86.{instruction}(i8 2, i8 5, i8 6)
"""
_STEP_WIDE = """
  %vk = getelementptr i8, ptr %wk, i64 64
  call void @llvm.x86.tileloadd64(i8 7, ptr %vk, i64 %ldw)
  call void @llvm.x86.{instruction}(i8 1, i8 4, i8 7)
  call void @llvm.x86.{instruction}(i8 3, i8 5, i8 7)
"""
_LOOPS = """
  %k1 = add i64 %k, 1
  %ak1 = getelementptr i8, ptr %ak, i64 %chunk
  %wk1 = getelementptr i8, ptr %wk, i64 %panel
  %k_more = icmp ult i64 %k1, %chunks
  br i1 %k_more, label %chunk_loop, label %column_end
column_end:
  %j1 = add i64 %j, 1
  %aj1 = getelementptr i8, ptr %aj, i64 %column
  %j_more = icmp ult i64 %j1, %columns
  br i1 %j_more, label %column_loop, label %row_end
row_end:
  %i1 = add i64 %i, 1
  %ai1 = getelementptr i8, ptr %ai, i64 %row
  %i_more = icmp ult i64 %i1, %rows
  br i1 %i_more, label %row_loop, label %end
end:
  %d = getelementptr i8, ptr %c, i64 %second_c
  call void @llvm.x86.tilestored64(i8 0, ptr %c, i64 %ldc)
  call void @llvm.x86.tilestored64(i8 2, ptr %d, i64 %ldc)
"""
_END_WIDE = """
  %c1 = getelementptr i8, ptr %c, i64 64
  %d1 = getelementptr i8, ptr %d, i64 64
  call void @llvm.x86.tilestored64(i8 1, ptr %c1, i64 %ldc)
  call void @llvm.x86.tilestored64(i8 3, ptr %d1, i64 %ldc)
"""
_ZEROS_WIDE = """
  call void @llvm.x86.tilezero(i8 1)
  call void @llvm.x86.tilezero(i8 3)
"""
_END = """
  ret i32 0
}}
define linkonce_odr i32 @{function}_end() {{
  call void @llvm.x86.tilerelease()
  ret i32 0
}}
"""


def can(dtype: str, machine: Machine) -> bool:
    """Whether the machine has the instruction for data of ``dtype``."""
    needed = "amx_int8" if dtype in BYTE_DTYPES else "amx_bf16"
    return dtype in _INSTRUCTIONS and needed in machine.features


def tile(dtype: str, channels: int, words: int) -> tuple[str, str]:
    """Return the name and the definition of the function for up to 32 channels and 16 words a step.

    Its arguments: where a job counts the pixels that the tiles are configured for; sums, data and filter;
    pixels, from 1 to 32; bytes from one pixel's sums and data to the next; rows and columns of the kernel
    with the bytes from one to the next in the data; steps with theirs; bytes from a word of the filter to
    the next, and from a step's words to the next's.
    """
    wide = channels > COLUMNS
    first, second = min(channels, COLUMNS), max(channels - COLUMNS, 1)
    sums = [4 * first, 4 * second, 4 * first, 4 * second]
    colsb = [*sums, 4 * words, 4 * words, 4 * first, 4 * second]
    name = f"tvmconv_amx_{dtype}_{channels}_{words}"
    text = "".join((_PROLOGUE, _STEP, _STEP_WIDE * wide, _LOOPS, _END_WIDE * wide, _END)).format(
        function=name,
        instruction=_INSTRUCTIONS[dtype],
        colsb=", ".join(f"i16 {count}" for count in colsb),
        words=words,
        registers=_REGISTERS,
        zeros=_ZEROS_WIDE if wide else "",
    )
    return name, text + "\ndeclare i32 @llvm.umax.i32(i32, i32)\n"
