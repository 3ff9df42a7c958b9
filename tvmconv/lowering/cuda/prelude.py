"""Device functions, in CUDA's language, that `gpu.tiles` and `gpu.pipelines` call.

Tiles are those of mma.sync (PTX ISA, "Matrix fragments for mma"): 16 rows of 32 bytes for operands, both with
the sum's direction along the bytes, and 16 x 16 sums as two m16n8. Lane g * 4 + t of a warp holds

    words of the first operand: [0] row g, [1] row g + 8, word t; [2], [3] the same of word t + 4
    of the second: [0] row g, word t, [1] word t + 4; [2], [3] the same of row g + 8
    sums: [0], [1] row g, columns 2t and 2t + 1; [2], [3] row g + 8; [4]-[7] eight columns further

so that one ldmatrix.x4 loads an operand of any dtype, and what an mma.sync takes lies in neighbouring
registers: with the first order for both, ptxas moved two words for every product. Compute capability 7.5
has smaller instructions, of which several make the same tile.
"""

from __future__ import annotations

# How a multiply function's name spells its operands' dtypes, and PTX's name for them.
NUMBERS = {"float16": "f16", "bfloat16": "bf16", "float32": "tf32", "int8": "s8", "uint8": "u8"}
_SHAPES = {
    "f16": "m16n8k16",
    "bf16": "m16n8k16",
    "tf32": "m16n8k8",
    "s8": "m16n8k32",
    "u8": "m16n8k32",
}

_MEMORY = """
#define TVMCONV static __device__ __forceinline__
TVMCONV unsigned tvmconv_shared(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
// Bytes from global to shared memory, or as many zeros, without waiting from compute capability 8.0 on.
template <int BYTES>
TVMCONV void tvmconv_copy(void* to, const void* from, bool there) {
#if __CUDA_ARCH__ >= 800
  const int size = there ? BYTES : 0;
  if (BYTES == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(tvmconv_shared(to)), "l"(from), "r"(size) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 :: "r"(tvmconv_shared(to)), "l"(from), "n"(BYTES), "r"(size) : "memory");
  }
#else
#pragma unroll
  for (int word = 0; word < BYTES / 4; ++word)
    static_cast<unsigned*>(to)[word] = there ? static_cast<const unsigned*>(from)[word] : 0;
#endif
}
TVMCONV void tvmconv_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Until all but the last PENDING groups of copies have arrived, for this thread.
template <int PENDING>
TVMCONV void tvmconv_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory");
#endif
}
// Until all blocks of a cluster of BLOCKS are here; what they wrote before, all of them read after.
template <int BLOCKS>
TVMCONV void tvmconv_meet() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
template <typename T>
TVMCONV void tvmconv_zero(T* sums) {
#pragma unroll
  for (int i = 0; i < 8; ++i) sums[i] = 0;
}
TVMCONV void tvmconv_matrices(unsigned* words, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(tvmconv_shared(row)) : "memory");
}
// Eight lanes each give the addresses of a matrix of 8 rows x 16 bytes.
TVMCONV void tvmconv_load_first(unsigned* words, const void* tile, int row_bytes) {
  const int lane = threadIdx.x & 31;
  const char* at = static_cast<const char*>(tile);
  tvmconv_matrices(words, at + (lane & 15) * row_bytes + (lane >> 4) * 16);
}
// The tensor cores cut what TF32 has no bits for off, which would shrink every product. cvt.rna rounds; ptxas
// makes two instructions of it (half of the last bit is added, but not to infinities and NaNs).
TVMCONV void tvmconv_load_first_tf32(unsigned* words, const void* tile, int row_bytes) {
  tvmconv_load_first(words, tile, row_bytes);
#if __CUDA_ARCH__ >= 800
#pragma unroll
  for (int i = 0; i < 4; ++i) asm("cvt.rna.tf32.f32 %0, %0;" : "+r"(words[i]));
#endif
}
TVMCONV void tvmconv_load_second(unsigned* words, const void* tile, int row_bytes) {
  const int lane = threadIdx.x & 31, row = (lane & 7) + (lane >> 4) * 8;
  const char* at = static_cast<const char*>(tile);
  tvmconv_matrices(words, at + row * row_bytes + (lane >> 3 & 1) * 16);
}
TVMCONV void tvmconv_pair(float* to, float first, float second) {
  *reinterpret_cast<float2*>(to) = make_float2(first, second);
}
TVMCONV void tvmconv_pair(int* to, int first, int second) {
  *reinterpret_cast<int2*>(to) = make_int2(first, second);
}
template <typename T>
TVMCONV void tvmconv_store(T* tile, int row_bytes, const T* sums) {
  const int lane = threadIdx.x & 31;
  char* row = reinterpret_cast<char*>(tile) + (lane >> 2) * row_bytes + (lane & 3) * 8;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    T* upper = reinterpret_cast<T*>(row + half * 32);
    T* lower = reinterpret_cast<T*>(row + half * 32 + 8 * row_bytes);
    tvmconv_pair(upper, sums[4 * half], sums[4 * half + 1]);
    tvmconv_pair(lower, sums[4 * half + 2], sums[4 * half + 3]);
  }
}
"""

_MULTIPLY = """
TVMCONV void tvmconv_multiply_%(a)s_%(b)s(%(sum)s* c, const unsigned* a, const unsigned* b) {
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    %(sum)s* d = c + 4 * n;
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.%(shape)s.row.col.%(d)s.%(a)s.%(b)s.%(d)s "
                 "{%%0, %%1, %%2, %%3}, {%%4, %%5, %%6, %%7}, {%%8, %%9}, {%%0, %%1, %%2, %%3};"
                 : "+%(r)s"(d[0]), "+%(r)s"(d[1]), "+%(r)s"(d[2]), "+%(r)s"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[2 * n]), "r"(b[2 * n + 1]));
#else
%(older)s
#endif
  }
}
"""

# Two sums of eight values each make one of sixteen.
_OLDER_HALF = """#pragma unroll
    for (int k = 0; k < 2; ++k)
      asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                   "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                   : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                   : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[2 * n + k]));"""
_OLDER_BYTES = """#pragma unroll
    for (int k = 0; k < 2; ++k) {
#pragma unroll
      for (int m = 0; m < 2; ++m)
        asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.%(a)s.%(b)s.s32 "
                     "{%%0, %%1}, {%%2}, {%%3}, {%%0, %%1};"
                     : "+r"(d[2 * m]), "+r"(d[2 * m + 1]) : "r"(a[2 * k + m]), "r"(b[2 * n + k]));
    }"""


def _multiply(a: str, b: str) -> str:
    whole = _SHAPES[a] == "m16n8k32"
    older = _OLDER_BYTES % {"a": a, "b": b} if whole else _OLDER_HALF if a == "f16" else ""
    kind = {"sum": "int", "d": "s32", "r": "r"} if whole else {"sum": "float", "d": "f32", "r": "f"}
    return _MULTIPLY % {"a": a, "b": b, "shape": _SHAPES[a], "older": older, **kind}


PRELUDE = _MEMORY + "".join(
    _multiply(*pair)
    for pair in (("f16", "f16"), ("bf16", "bf16"), ("tf32", "tf32"), ("s8", "s8"), ("u8", "s8"))
)
