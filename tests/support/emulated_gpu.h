// One block or cluster of a CUDA kernel at a time, its threads as fibers of one CPU thread: values, not times.
//
// Every thread runs until it waits for its warp, block or cluster, in an order that the caller seeds; a thread
// that waits in vain is a deadlock. Asynchronous copies arrive when they are waited for and no sooner. Shared memory
// holds no numbers before, and ends where no memory is. Inline PTX becomes calls of the functions in ``ptx``
// (emulated_ptx.py), which do what the PTX ISA says of the instruction of that name.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

namespace emulated {
enum Wait { RUNS, WARP, BLOCK, CLUSTER, DONE };
struct Copy { void* to; const void* from; int bytes, read; };
struct Thread {
  ucontext_t context;  // for its first run; jumps go on from there, which cost no call of the kernel
  jmp_buf place;
  bool started;
  uint3 index;
  unsigned block;
  Wait wait;
  std::vector<std::vector<Copy>> groups;  // the last one is open
  // What its warp reads of it: of two instructions in turn, so that they wait once each.
  unsigned words[2][6];
  int turn;
};
static jmp_buf scheduler;
static std::vector<Thread> threads;
static int current;
static std::function<void()> kernel;
static unsigned char* shared;
static size_t shared_bytes;

static void pause(Wait why) {
  Thread& me = threads[current];
  me.wait = why;
  if (!_setjmp(me.place)) _longjmp(scheduler, 1);
}
static void body() {
  kernel();
  pause(DONE);
}
}  // namespace emulated

using std::max;
using std::min;
static uint3 threadIdx, blockIdx;
static dim3 gridDim, blockDim;
static unsigned char* tvmconv_dynamic_shared;
#define __syncthreads() emulated::pause(emulated::BLOCK)
#define __trap() abort()
#define __cvta_generic_to_shared(p) (reinterpret_cast<const unsigned char*>(p) - tvmconv_dynamic_shared)

namespace emulated {
static const size_t STACK = 128 << 10, SHARED = 256 << 10;

static void wake(size_t first, size_t last, Wait from) {
  for (size_t t = first; t < last; ++t)
    if (threads[t].wait != from) return;
  for (size_t t = first; t < last; ++t) threads[t].wait = RUNS;
}

static void resume(Thread& thread) {
  if (_setjmp(scheduler)) return;  // its pause
  if (thread.started) _longjmp(thread.place, 1);
  thread.started = true;
  setcontext(&thread.context);
}

static void begin_thread(Thread& thread, size_t number, dim3 size, char* stack) {
  thread.index = make_uint3(number % size.x, number / size.x % size.y, number / size.x / size.y);
  thread.groups.resize(1);
  getcontext(&thread.context);
  thread.context.uc_stack.ss_sp = stack;
  thread.context.uc_stack.ss_size = STACK;
  makecontext(&thread.context, body, 0);
}

static unsigned char* shared_of(unsigned block) { return shared + (2 * block + 1) * SHARED - shared_bytes; }

// Blocks that run at the same time, from the first on, each with shared memory of its own. 0, or 1 for a
// deadlock: some threads wait for others that never come.
static int run_blocks(uint3 first, unsigned blocks, dim3 size, unsigned seed) {
  static std::vector<char> stacks;
  const size_t each = size.x * size.y * size.z, count = each * blocks;
  stacks.resize(count * STACK);
  threads.assign(count, Thread{});
  for (unsigned b = 0; b < blocks; ++b) memset(shared_of(b), 0xFF, shared_bytes);
  std::vector<int> order(count);
  for (size_t t = 0; t < count; ++t) {
    order[t] = t;
    threads[t].block = t / each;
    begin_thread(threads[t], t % each, size, &stacks[t * STACK]);
  }
  std::shuffle(order.begin(), order.end(), std::mt19937(seed));
  for (;;) {
    bool ran = false, done = true;
    for (int t : order) {
      if (threads[t].wait != RUNS) continue;
      current = t;
      threadIdx = threads[t].index;
      blockIdx = make_uint3(first.x + threads[t].block, first.y, first.z);
      tvmconv_dynamic_shared = shared_of(threads[t].block);
      resume(threads[t]);
      ran = true;
    }
    for (size_t t = 0; t < count; ++t) done = done && threads[t].wait == DONE;
    if (done) return 0;
    if (!ran) return 1;
    for (size_t b = 0; b < count; b += each) {
      for (size_t w = b; w < b + each; w += 32) wake(w, std::min(w + 32, b + each), WARP);
      wake(b, b + each, BLOCK);
    }
    wake(0, count, CLUSTER);
  }
}

// Shared memory of a cluster's blocks, each in front of as much that nobody may touch.
static unsigned char* shared_memory(unsigned blocks) {
  static unsigned char* begin = nullptr;
  static unsigned held = 0;
  if (blocks > held) {
    void* made = mmap(nullptr, 2 * SHARED * blocks, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED) abort();
    begin = static_cast<unsigned char*>(made);
    held = blocks;
    for (unsigned block = 0; block < blocks; ++block)
      if (mprotect(begin + 2 * SHARED * block, SHARED, PROT_READ | PROT_WRITE)) abort();
  }
  return begin;
}

// Sizes are x, y, z; clusters lie along x.
static int launch(const unsigned* grid, const unsigned* block, unsigned cluster, size_t bytes, unsigned seed,
                  std::function<void()> f) {
  kernel = f;
  shared = shared_memory(cluster);
  shared_bytes = (bytes + 127) / 128 * 128;  // aligned as on a GPU
  gridDim = dim3(grid[0], grid[1], grid[2]);
  blockDim = dim3(block[0], block[1], block[2]);
  if (grid[0] % cluster) return 2;
  for (unsigned z = 0; z < grid[2]; ++z)
    for (unsigned y = 0; y < grid[1]; ++y)
      for (unsigned x = 0; x < grid[0]; x += cluster)
        if (run_blocks(make_uint3(x, y, z), cluster, blockDim, seed + x)) return 1;
  return 0;
}

static Thread& me() { return threads[current]; }
// Blocks are whole warps where warps work together.
static Thread& neighbour(int lane) { return threads[current / 32 * 32 + lane]; }
static int lane() { return current % 32; }
template <typename T>
static float number(const unsigned* words, int at);
template <>
float number<half>(const unsigned* words, int at) {
  return __half2float(reinterpret_cast<const half*>(words)[at]);
}
template <>
float number<__nv_bfloat16>(const unsigned* words, int at) {
  return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(words)[at]);
}
template <>
float number<int8_t>(const unsigned* words, int at) {
  return reinterpret_cast<const int8_t*>(words)[at];
}
template <>
float number<uint8_t>(const unsigned* words, int at) {
  return reinterpret_cast<const uint8_t*>(words)[at];
}

// The tensor cores see the upper 19 bits of a word: what was not rounded before is cut off.
struct tf32 { unsigned bits; };
template <>
float number<tf32>(const unsigned* words, int at) {
  const unsigned seen = words[at] & 0xFFFFE000u;
  float value;
  memcpy(&value, &seen, 4);
  return value;
}

// Gives the warp this thread's words, and waits for those of all others. Returns which of their words they are.
static int exchange(const unsigned* words, int count) {
  Thread& mine = me();
  const int turn = mine.turn ^= 1;
  std::copy(words, words + count, mine.words[turn]);
  pause(WARP);
  return turn;
}

// D = A x B + C of a warp, "Matrix fragments for mma" of the PTX ISA: with g = lane / 4 and t = lane % 4, and as
// many numbers in a register as go into 32 bits, register r of A holds row g + 8 (r % 2), of B column g, both from
// k = numbers x (t + 4 x (A: r / 2, B: r)) on; sum i lies in row g + 8 (i / 2) and column 2t + i % 2.
template <typename A, typename B, typename Sum, int SUMS, int AS, int BS>
static void multiply(const std::array<Sum*, SUMS>& d, const std::array<const unsigned*, AS>& a,
                     const std::array<const unsigned*, BS>& b, const std::array<Sum*, SUMS>& c) {
  unsigned words[AS + BS];
  for (int i = 0; i < AS; ++i) words[i] = *a[i];
  for (int i = 0; i < BS; ++i) words[AS + i] = *b[i];
  const int turn = exchange(words, AS + BS), numbers = 4 / sizeof(A), group = lane() / 4;
  for (int i = 0; i < SUMS; ++i) {
    const int column = lane() % 4 * 2 + i % 2;
    Sum sum = *c[i];
    for (int slab = 0; slab < BS; ++slab)
      for (int t = 0; t < 4; ++t) {
        const unsigned* left = &neighbour(group * 4 + t).words[turn][i / 2 + slab * (SUMS / 2)];
        const unsigned* right = &neighbour(column * 4 + t).words[turn][AS + slab];
        for (int k = 0; k < numbers; ++k) sum += number<A>(left, k) * number<B>(right, k);
      }
    *d[i] = sum;
  }
}

// An address in shared memory, as 32 bits.
static unsigned char* in_shared(unsigned address, unsigned bytes) {
  if (address % bytes || address + bytes > shared_bytes) __builtin_trap();
  return tvmconv_dynamic_shared + address;
}
}  // namespace emulated

namespace ptx {
template <typename First, typename... Rest>
static std::array<First*, 1 + sizeof...(Rest)> list(First& first, Rest&... rest) {
  return {&first, &rest...};
}

// Of `bytes` that are written, `size` are read and the others are zero.
static void cp_async_cg_shared_global(unsigned to, const void* from, int bytes, int size) {
  if (reinterpret_cast<uintptr_t>(from) % bytes || size > bytes) __builtin_trap();
  emulated::me().groups.back().push_back({emulated::in_shared(to, bytes), from, bytes, size});
}
static void cp_async_ca_shared_global(unsigned to, const void* from, int bytes, int size) {
  cp_async_cg_shared_global(to, from, bytes, size);
}
static void cp_async_commit_group() { emulated::me().groups.emplace_back(); }
static void cp_async_wait_group(size_t pending) {
  auto& groups = emulated::me().groups;
  while (groups.size() > pending + 1) {
    for (auto& copy : groups.front()) {
      memset(copy.to, 0, copy.bytes);
      memcpy(copy.to, copy.from, copy.read);
    }
    groups.erase(groups.begin());
  }
}
static void barrier_cluster_arrive_release_aligned() {}
static void barrier_cluster_wait_acquire_aligned() { emulated::pause(emulated::CLUSTER); }

// Lanes 8 i to 8 i + 7 give the rows of matrix i, of 16 bytes; lane 4 r + w gets word w of each one's row r.
static void ldmatrix_sync_aligned_m8n8_x4_shared_b16(const std::array<unsigned*, 4>& words, unsigned row) {
  const int turn = emulated::exchange(&row, 1);
  for (int i = 0; i < 4; ++i) {
    const unsigned begin = emulated::neighbour(8 * i + emulated::lane() / 4).words[turn][0];
    memcpy(words[i], emulated::in_shared(begin, 16) + emulated::lane() % 4 * 4, 4);
  }
}

// To 11 significant bits, the nearest, of two the one further from zero.
static void cvt_rna_tf32_f32(unsigned& to, unsigned from) {
  float value;
  memcpy(&value, &from, 4);
  if (std::isfinite(value)) {
    int exponent;
    const float fraction = std::frexp(value, &exponent);
    value = std::ldexp(std::round(std::ldexp(fraction, 11)), exponent - 11);
  }
  memcpy(&to, &value, 4);
}

#define EMULATED_MMA(name, A, B, Sum, SUMS, AS, BS)                                                        \
  static void mma_sync_aligned_##name(                                                                     \
      const std::array<Sum*, SUMS>& d, const std::array<const unsigned*, AS>& a,                           \
      const std::array<const unsigned*, BS>& b, const std::array<Sum*, SUMS>& c) {                         \
    emulated::multiply<A, B, Sum, SUMS, AS, BS>(d, a, b, c);                                               \
  }
EMULATED_MMA(m16n8k16_row_col_f32_f16_f16_f32, half, half, float, 4, 4, 2)
EMULATED_MMA(m16n8k8_row_col_f32_f16_f16_f32, half, half, float, 4, 2, 1)
EMULATED_MMA(m16n8k16_row_col_f32_bf16_bf16_f32, __nv_bfloat16, __nv_bfloat16, float, 4, 4, 2)
EMULATED_MMA(m16n8k8_row_col_f32_tf32_tf32_f32, emulated::tf32, emulated::tf32, float, 4, 4, 2)
EMULATED_MMA(m16n8k32_row_col_s32_s8_s8_s32, int8_t, int8_t, int, 4, 4, 2)
EMULATED_MMA(m16n8k32_row_col_s32_u8_s8_s32, uint8_t, int8_t, int, 4, 4, 2)
EMULATED_MMA(m8n8k16_row_col_s32_s8_s8_s32, int8_t, int8_t, int, 2, 1, 1)
EMULATED_MMA(m8n8k16_row_col_s32_u8_s8_s32, uint8_t, int8_t, int, 2, 1, 1)
}  // namespace ptx
