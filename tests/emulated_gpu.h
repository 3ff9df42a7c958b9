// One block or cluster of a CUDA kernel at a time, its threads as fibers of one CPU thread: values, not times.
//
// Every thread runs until it waits for its warp, block or cluster, in an order that the caller seeds; a thread that
// waits in vain is a deadlock. Asynchronous copies arrive when they are waited for and no sooner, and shared
// memory holds no numbers before. The device functions below replace those of tvmconv/gpu/prelude.py and follow
// the PTX ISA's tables of fragments; the originals' PTX itself is not run.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

namespace emulated {
enum Wait { RUNS, WARP, BLOCK, CLUSTER, DONE };
struct Copy { void* to; const void* from; int bytes; bool there; };
struct Thread {
  ucontext_t context;
  uint3 index;
  unsigned block;
  Wait wait;
  std::vector<std::vector<Copy>> groups;  // the last one is open
  unsigned a[4], b[4];
};
static ucontext_t scheduler;
static std::vector<Thread> threads;
static int current;
static std::function<void()> kernel;
static unsigned char* shared;

static void pause(Wait why) {
  Thread& me = threads[current];
  me.wait = why;
  swapcontext(&me.context, &scheduler);
}
static void body() {
  kernel();
  pause(DONE);
}
}  // namespace emulated

using std::max;
using std::min;
static uint3 threadIdx, blockIdx;
static unsigned char* tvmconv_dynamic_shared;
#define __syncthreads() emulated::pause(emulated::BLOCK)

namespace emulated {
static const size_t STACK = 128 << 10, SHARED = 256 << 10;

static void wake(size_t first, size_t last, Wait from) {
  for (size_t t = first; t < last; ++t)
    if (threads[t].wait != from) return;
  for (size_t t = first; t < last; ++t) threads[t].wait = RUNS;
}

static void begin_thread(Thread& thread, size_t number, dim3 size, char* stack) {
  thread.index = make_uint3(number % size.x, number / size.x % size.y, number / size.x / size.y);
  thread.groups.resize(1);
  getcontext(&thread.context);
  thread.context.uc_stack.ss_sp = stack;
  thread.context.uc_stack.ss_size = STACK;
  makecontext(&thread.context, body, 0);
}

// Blocks that run at the same time, from the first on, each with shared memory of its own. 0, or 1 for a
// deadlock: some threads wait for others that never come.
static int run_blocks(unsigned first, unsigned blocks, dim3 size, unsigned seed) {
  static std::vector<char> stacks;
  const size_t each = size.x * size.y * size.z, count = each * blocks;
  stacks.resize(count * STACK);
  threads.assign(count, Thread{});
  memset(shared, 0xFF, blocks * SHARED);
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
      blockIdx = make_uint3(first + threads[t].block, 0, 0);
      tvmconv_dynamic_shared = shared + threads[t].block * SHARED;
      swapcontext(&scheduler, &threads[t].context);
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

static int launch(dim3 grid, dim3 block, unsigned cluster, unsigned seed, std::function<void()> f) {
  kernel = f;
  static std::vector<unsigned char> memory;
  memory.resize(cluster * SHARED + 128);
  shared = &memory[0] + (128 - reinterpret_cast<uintptr_t>(&memory[0]) % 128);
  if (grid.x % cluster) return 2;
  for (unsigned x = 0; x < grid.x; x += cluster)
    if (run_blocks(x, cluster, block, seed + x)) return 1;
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
// To 11 significant bits, the nearest, of two the one further from zero.
static float rounded_to_tf32(float value) {
  if (!std::isfinite(value)) return value;
  int exponent;
  const float fraction = std::frexp(value, &exponent);
  return std::ldexp(std::round(std::ldexp(fraction, 11)), exponent - 11);
}

// Row r of an operand's 32 bytes, gathered from the lanes that hold it.
static void row_of(bool first, int r, unsigned* row) {
  for (int word = 0; word < 8; ++word) {
    Thread& owner = neighbour(r % 8 * 4 + word % 4);
    row[word] = first ? owner.a[r / 8 + word / 4 * 2] : owner.b[r / 8 * 2 + word / 4];
  }
}

template <typename A, typename B, typename Sum>
static void multiply(Sum* c, const unsigned* a, const unsigned* b) {
  std::copy(a, a + 4, me().a);
  std::copy(b, b + 4, me().b);
  pause(WARP);
  const int depth = 32 / sizeof(A), group = lane() / 4, pair = lane() % 4 * 2;
  for (int i = 0; i < 8; ++i) {
    unsigned left[8], right[8];
    row_of(true, group + i / 2 % 2 * 8, left);
    row_of(false, pair + i % 2 + i / 4 * 8, right);
    Sum sum = c[i];
    for (int k = 0; k < depth; ++k) sum += number<A>(left, k) * number<B>(right, k);
    c[i] = sum;
  }
  pause(WARP);
}
}  // namespace emulated

template <int BYTES>
static void tvmconv_copy(void* to, const void* from, bool there) {
  emulated::me().groups.back().push_back({to, from, BYTES, there});
}
static void tvmconv_commit() { emulated::me().groups.emplace_back(); }
template <int PENDING>
static void tvmconv_wait() {
  auto& groups = emulated::me().groups;
  while (groups.size() > PENDING + 1) {
    for (auto& copy : groups.front()) {
      if (reinterpret_cast<uintptr_t>(copy.to) % copy.bytes) abort();
      if (copy.there) memcpy(copy.to, copy.from, copy.bytes);
      else memset(copy.to, 0, copy.bytes);
    }
    groups.erase(groups.begin());
  }
}
template <int BLOCKS>
static void tvmconv_meet() {
  emulated::pause(emulated::CLUSTER);
}
template <typename T>
static void tvmconv_zero(T* sums) { std::fill(sums, sums + 8, T(0)); }
static void tvmconv_load(unsigned* words, const void* tile, int row_bytes, bool first) {
  const int lane = emulated::lane();
  const char* at = static_cast<const char*>(tile) + lane / 4 * row_bytes + lane % 4 * 4;
  if (reinterpret_cast<uintptr_t>(tile) % 16 || row_bytes % 16) abort();
  for (int i = 0; i < 4; ++i) {
    const int lower = first ? i % 2 : i / 2, right = first ? i / 2 : i % 2;
    memcpy(words + i, at + lower * 8 * row_bytes + right * 16, 4);
  }
}
static void tvmconv_load_first(unsigned* words, const void* tile, int row_bytes) {
  tvmconv_load(words, tile, row_bytes, true);
}
static void tvmconv_load_first_tf32(unsigned* words, const void* tile, int row_bytes) {
  tvmconv_load(words, tile, row_bytes, true);
  for (int i = 0; i < 4; ++i) {
    float value;
    memcpy(&value, words + i, 4);
    value = emulated::rounded_to_tf32(value);
    memcpy(words + i, &value, 4);
  }
}
static void tvmconv_load_second(unsigned* words, const void* tile, int row_bytes) {
  tvmconv_load(words, tile, row_bytes, false);
}
template <typename T>
static void tvmconv_store(T* tile, int row_bytes, const T* sums) {
  const int lane = emulated::lane();
  for (int i = 0; i < 8; ++i) {
    char* row = reinterpret_cast<char*>(tile) + (lane / 4 + i / 2 % 2 * 8) * row_bytes;
    reinterpret_cast<T*>(row)[lane % 4 * 2 + i % 2 + i / 4 * 8] = sums[i];
  }
}
#define TVMCONV_MULTIPLY(name, A, B, Sum)                                          \
  static void tvmconv_multiply_##name(Sum* c, const unsigned* a, const unsigned* b) { \
    emulated::multiply<A, B, Sum>(c, a, b);                                        \
  }
TVMCONV_MULTIPLY(f16_f16, half, half, float)
TVMCONV_MULTIPLY(bf16_bf16, __nv_bfloat16, __nv_bfloat16, float)
TVMCONV_MULTIPLY(tf32_tf32, emulated::tf32, emulated::tf32, float)
TVMCONV_MULTIPLY(s8_s8, int8_t, int8_t, int)
TVMCONV_MULTIPLY(u8_s8, uint8_t, int8_t, int)
