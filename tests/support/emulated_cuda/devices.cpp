// The cards that are here, by EMULATED_GPUS ("sm_90", "sm_90,sm_80"), and their memory, EMULATED_GPU_MEMORY bytes.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <sstream>

#include "core.h"

namespace emulated {
// Never destroyed: the process may free memory while it ends.
std::recursive_mutex& lock = *new std::recursive_mutex;
thread_local int current = -1;
static pid_t initialised_in = 0;

// From the programming guide's table of compute capabilities and the cards' data sheets.
static const std::map<std::string, Card> CARDS = {
    {"sm_75", {"Tesla T4 (emulated)", 7, 5, 40, 64 << 10, 64 << 10, 4 << 20}},
    {"sm_80", {"NVIDIA A100 (emulated)", 8, 0, 108, 163 << 10, 164 << 10, 40 << 20}},
    {"sm_86", {"NVIDIA GeForce RTX 3090 (emulated)", 8, 6, 82, 99 << 10, 100 << 10, 6 << 20}},
    {"sm_89", {"NVIDIA GeForce RTX 4090 (emulated)", 8, 9, 128, 99 << 10, 100 << 10, 72 << 20}},
    {"sm_90", {"NVIDIA H100 (emulated)", 9, 0, 132, 227 << 10, 228 << 10, 50 << 20}},
    {"sm_100", {"NVIDIA B200 (emulated)", 10, 0, 148, 227 << 10, 228 << 10, 126 << 20}},
};
static const size_t ARENA = size_t(64) << 30;  // addresses, not memory

static std::string setting(const char* name, const char* otherwise) {
  const char* found = getenv(name);
  return found ? found : otherwise;
}

static std::vector<Device>& made() {
  auto& all = *new std::vector<Device>;
  std::istringstream names(setting("EMULATED_GPUS", "sm_90"));
  const size_t memory = std::stoull(setting("EMULATED_GPU_MEMORY", "2147483648"));
  for (std::string name; std::getline(names, name, ',');) {
    if (!CARDS.count(name)) {
      fprintf(stderr, "emulated driver: EMULATED_GPUS names %s, which is no card here\n", name.c_str());
      abort();
    }
    void* arena = mmap(nullptr, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED) abort();
    Device device{};
    device.index = all.size();
    device.card = CARDS.at(name);
    device.memory = memory;
    device.arena = device.next = reinterpret_cast<uintptr_t>(arena);
    device.arena_end = device.arena + ARENA;
    all.push_back(device);
  }
  for (Device& device : all) device.legacy.device = &device;
  return all;
}

std::vector<Device>& devices() {
  static std::vector<Device>& all = made();
  return all;
}

cudaError_t initialise() {
  if (initialised_in == 0) initialised_in = getpid();
  if (initialised_in != getpid()) return cudaErrorInitializationError;  // a context does not survive a fork
  return devices().empty() ? cudaErrorNoDevice : cudaSuccess;
}

bool initialised() { return initialised_in != 0; }

cudaError_t start(Device** out) {
  const cudaError_t status = initialise();
  if (status != cudaSuccess) return status;
  if (current < 0) current = 0;
  *out = &devices()[current];
  (*out)->started = true;
  return (*out)->error;
}

cudaError_t poison(Device& device, cudaError_t error) {
  device.error = error;
  auto drop = [](Stream& stream) {
    for (auto& operation : stream.queue) operation->done = true;
    stream.queue.clear();
  };
  drop(device.legacy);
  for (Stream* stream : device.streams) drop(*stream);
  return error;
}

bool attribute(const Card& card, int which, int* value) {
  switch (which) {
    case cudaDevAttrMaxThreadsPerBlock: case cudaDevAttrMaxBlockDimX: case cudaDevAttrMaxBlockDimY:
      *value = 1024; return true;
    case cudaDevAttrMaxBlockDimZ: *value = 64; return true;
    case cudaDevAttrMaxGridDimX: *value = 2147483647; return true;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *value = 65535; return true;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 << 10; return true;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = card.shared_optin; return true;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = card.shared_multiprocessor; return true;
    case cudaDevAttrWarpSize: *value = 32; return true;
    case cudaDevAttrMaxRegistersPerBlock: case cudaDevAttrMaxRegistersPerMultiprocessor:
      *value = 65536; return true;
    case cudaDevAttrClockRate: *value = 1000000; return true;  // kHz; times mean nothing here
    case cudaDevAttrMultiProcessorCount: *value = card.multiprocessors; return true;
    case cudaDevAttrComputeCapabilityMajor: *value = card.major; return true;
    case cudaDevAttrComputeCapabilityMinor: *value = card.minor; return true;
    case cudaDevAttrL2CacheSize: *value = card.l2_bytes; return true;
    case cudaDevAttrIntegrated: *value = 0; return true;
    default: return false;
  }
}
}  // namespace emulated
