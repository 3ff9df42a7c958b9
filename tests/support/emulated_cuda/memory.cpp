// Memory of the devices: each allocation on pages of its own, which only work in a stream can touch.
//
// Addresses are never given twice, so that use after free is an illegal address. An allocation ends less than
// 256 bytes before its last page; what is left of its pages is a guard, looked at after every piece of work.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core.h"

namespace emulated {
static const uintptr_t PAGE = 4096, ALIGNMENT = 256;
static const int GUARD = 0xA5, NO_NUMBER = 0xFF;
static std::map<uintptr_t, size_t>& pinned = *new std::map<uintptr_t, size_t>;

static uintptr_t up(uintptr_t bytes, uintptr_t unit) { return (bytes + unit - 1) / unit * unit; }

static void protect(const Allocation& each, int how) {
  if (mprotect(reinterpret_cast<void*>(each.pages), each.page_bytes, how)) abort();
}

static int depth(const Device& device, int change) {
  static std::map<int, int> open;
  return open[device.index] += change;
}

Access::Access(Device& which) : device(which) {
  if (depth(device, 1) == 1)
    for (auto& each : device.allocations) protect(each.second, PROT_READ | PROT_WRITE);
}

Access::~Access() {
  if (depth(device, -1) == 0)
    for (auto& each : device.allocations) protect(each.second, PROT_NONE);
}

cudaError_t allocate(Device& device, size_t bytes, void** out) {
  *out = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (bytes > device.memory || device.used + up(bytes, 512) > device.memory)
    return cudaErrorMemoryAllocation;
  const uintptr_t pages = up(up(bytes, ALIGNMENT), PAGE);
  if (device.next + pages + PAGE > device.arena_end) return cudaErrorMemoryAllocation;
  Allocation made{device.next + PAGE + pages - up(bytes, ALIGNMENT), bytes, device.next + PAGE, pages};
  device.next += PAGE + pages;
  protect(made, PROT_READ | PROT_WRITE);
  memset(reinterpret_cast<void*>(made.pages), GUARD, pages);
  memset(reinterpret_cast<void*>(made.begin), NO_NUMBER, bytes);
  protect(made, PROT_NONE);
  device.used += up(bytes, 512);
  device.allocations[made.begin] = made;
  *out = reinterpret_cast<void*>(made.begin);
  return cudaSuccess;
}

static Device* owner_of(uintptr_t at) {
  for (Device& device : devices())
    if (device.arena <= at && at < device.arena_end) return &device;
  return nullptr;
}

bool is_device(const void* pointer) { return owner_of(reinterpret_cast<uintptr_t>(pointer)) != nullptr; }

const Allocation* allocation_of(const void* pointer, Device** owner) {
  const auto at = reinterpret_cast<uintptr_t>(pointer);
  *owner = owner_of(at);
  if (!*owner) return nullptr;
  auto after = (*owner)->allocations.upper_bound(at);
  if (after == (*owner)->allocations.begin()) return nullptr;
  const Allocation& found = std::prev(after)->second;
  return at < found.begin + found.bytes ? &found : nullptr;
}

static void check_guard(const Allocation& each, const char* who) {
  const auto wrong = [&](uintptr_t begin, uintptr_t end) {
    for (uintptr_t at = begin; at < end; ++at)
      if (*reinterpret_cast<unsigned char*>(at) != GUARD) return true;
    return false;
  };
  const uintptr_t end = each.begin + each.bytes;
  if (wrong(each.pages, each.begin) || wrong(end, each.pages + each.page_bytes)) {
    fprintf(stderr, "emulated driver: %s writes beyond an allocation of %zu bytes\n", who, size_t(each.bytes));
    abort();
  }
}

void check_guards(const Device& device, const char* who) {
  for (auto& each : device.allocations) check_guard(each.second, who);
}

cudaError_t release(void* pointer) {
  if (!pointer) return cudaSuccess;
  Device* owner;
  const Allocation* found = allocation_of(pointer, &owner);
  if (!found || found->begin != reinterpret_cast<uintptr_t>(pointer)) return cudaErrorInvalidValue;
  const Allocation freed = *found;
  protect(freed, PROT_READ);
  check_guard(freed, "work before cudaFree");
  owner->allocations.erase(freed.begin);
  owner->used -= up(freed.bytes, 512);
  void* gone = mmap(reinterpret_cast<void*>(freed.pages), freed.page_bytes, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  return gone == MAP_FAILED ? cudaErrorUnknown : cudaSuccess;
}

cudaError_t allocate_host(size_t bytes, void** out) {
  *out = aligned_alloc(PAGE, up(bytes ? bytes : 1, PAGE));
  if (!*out) return cudaErrorMemoryAllocation;
  memset(*out, NO_NUMBER, bytes);
  pinned[reinterpret_cast<uintptr_t>(*out)] = bytes;
  return cudaSuccess;
}

cudaError_t release_host(void* pointer) {
  if (!pinned.erase(reinterpret_cast<uintptr_t>(pointer))) return cudaErrorInvalidValue;
  free(pointer);
  return cudaSuccess;
}

bool is_pinned(const void* pointer, size_t bytes) {
  const auto at = reinterpret_cast<uintptr_t>(pointer);
  auto after = pinned.upper_bound(at);
  if (after == pinned.begin()) return false;
  const auto& found = *std::prev(after);
  return at + bytes <= found.first + found.second;
}
}  // namespace emulated
