// Modules and launches: the code of an image is what g++ made of the same CUDA C++, found by the image's hash
// in the folder EMULATED_KERNELS (tests/support/emulated_kernels.py puts it there). Kernels whose name contains
// EMULATED_FAULT end with an illegal address; EMULATED_SEED orders the threads.
#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core.h"

namespace emulated {
static uint64_t hash_of(const void* image, size_t bytes) {  // FNV-1a
  uint64_t hash = 14695981039346656037ull;
  for (size_t i = 0; i < bytes; ++i)
    hash = (hash ^ static_cast<const unsigned char*>(image)[i]) * 1099511628211ull;
  return hash;
}

// As tvmconv/building/cuda/fatbin.py reads it: a header, then parts, each with a header of its own.
struct Header { uint32_t magic; uint16_t version, header_bytes; uint64_t bytes; };
struct Part { uint16_t kind, version; uint32_t header_bytes; uint64_t bytes; uint32_t other[3], arch; };
static const uint32_t MAGIC = 0xBA55ED50;
enum { PTX = 1, CUBIN = 2 };

// Machine code runs on its major number from its minor one on; PTX is compiled for anything newer.
static bool runs_on(const char* image, const Header& header, const Card& card) {
  const int here = card.major * 10 + card.minor;
  const char* at = image + header.header_bytes;
  const char* end = at + header.bytes;
  while (at + sizeof(Part) <= end) {
    Part part;
    memcpy(&part, at, sizeof part);
    const int arch = part.arch;
    if (part.kind == PTX && arch <= here) return true;
    if (part.kind == CUBIN && arch / 10 == card.major && arch <= here) return true;
    if (!part.header_bytes) break;
    at += part.header_bytes + part.bytes;
  }
  return false;
}

cudaError_t load(Device& device, const void* image, Module** out) {
  Header header;
  memcpy(&header, image, sizeof header);
  if (header.magic != MAGIC) return cudaErrorInvalidKernelImage;
  if (!runs_on(static_cast<const char*>(image), header, device.card)) return cudaErrorNoKernelImageForDevice;
  char name[32];
  const size_t bytes = header.header_bytes + header.bytes;
  snprintf(name, sizeof name, "%016llx.so", static_cast<unsigned long long>(hash_of(image, bytes)));
  const char* folder = getenv("EMULATED_KERNELS");
  const std::string path = std::string(folder ? folder : ".") + "/" + name;
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fprintf(stderr, "emulated driver: %s; build with tests/support/emulated_kernels.py's nvcc\n", dlerror());
    return cudaErrorFileNotFound;
  }
  auto* made = new Module{&device, library, nullptr, {}};
  made->run = reinterpret_cast<decltype(made->run)>(dlsym(library, "emulated_run"));
  auto* kernel = static_cast<const Kernel*>(dlsym(library, "emulated_kernels"));
  if (!made->run || !kernel) abort();
  for (int index = 0; kernel[index].name; ++index)
    made->functions[kernel[index].name] = Function{made, kernel[index], index, 48 << 10};
  device.modules.insert(made);
  *out = made;
  return cudaSuccess;
}

static sigjmp_buf escape;
static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

static void on_signal(int number, siginfo_t* info, void*) {
  // The stack belongs to the kernel's thread and is given up.
  const bool memory = number == SIGSEGV || number == SIGBUS;
  // A vector instruction that wants alignment has no address; g++'s check of alignment ends in ud2.
  const bool misaligned = number == SIGILL || (memory && info->si_code == SI_KERNEL);
  siglongjmp(escape, misaligned ? cudaErrorMisalignedAddress
                     : memory   ? cudaErrorIllegalAddress
                                : cudaErrorLaunchFailure);
}

// cudaSuccess, or what a GPU would say of the fault.
static cudaError_t run(const Function& function, void** parameters, const CUlaunchConfig& config, unsigned seed) {
  struct sigaction before[5], mine{};
  mine.sa_sigaction = on_signal;
  mine.sa_flags = SA_SIGINFO | SA_NODEFER;
  for (int i = 0; i < 5; ++i) sigaction(SIGNALS[i], &mine, &before[i]);
  const unsigned grid[] = {config.gridDimX, config.gridDimY, config.gridDimZ};
  const unsigned block[] = {config.blockDimX, config.blockDimY, config.blockDimZ};
  int status = sigsetjmp(escape, 1);
  if (status == 0) {
    const int stuck =
        function.module->run(function.index, parameters, grid, block, config.sharedMemBytes, seed);
    if (stuck) status = cudaErrorLaunchTimeout;  // threads that wait for ever
  }
  for (int i = 0; i < 5; ++i) sigaction(SIGNALS[i], &before[i], nullptr);
  return static_cast<cudaError_t>(status);
}

static cudaError_t check(const Function& function, const CUlaunchConfig& c) {
  const uint64_t x = c.blockDimX, y = c.blockDimY, z = c.blockDimZ;
  if (!c.gridDimX || !c.gridDimY || !c.gridDimZ || !x || !y || !z) return cudaErrorInvalidValue;
  if (c.gridDimX > 2147483647u || c.gridDimY > 65535 || c.gridDimZ > 65535) return cudaErrorInvalidValue;
  if (x > 1024 || y > 1024 || z > 64 || x * y * z > 1024) return cudaErrorInvalidValue;
  if (x * y * z > uint64_t(function.kernel.max_threads)) return cudaErrorInvalidValue;
  if (c.gridDimX % function.kernel.cluster) return cudaErrorInvalidValue;
  if (c.sharedMemBytes > unsigned(function.dynamic_shared)) return cudaErrorInvalidValue;
  for (unsigned i = 0; i < c.numAttrs; ++i)
    if (c.attrs[i].id != CU_LAUNCH_ATTRIBUTE_IGNORE) return cudaErrorNotSupported;
  return cudaSuccess;  // ptxas keeps registers within what the most threads allow
}

cudaError_t launch(Function& function, const CUlaunchConfig& config, void** parameters, void** extra) {
  Device& device = *function.module->device;
  Stream* stream = stream_of(config.hStream, devices()[current]);
  if (!stream || stream->device != &device || current != device.index) return cudaErrorInvalidResourceHandle;
  if (extra || (function.kernel.parameters && !parameters)) return cudaErrorInvalidValue;
  const cudaError_t status = check(function, config);
  if (status != cudaSuccess) return status;
  // What the parameters are now: all are addresses, which emulated_kernels.py sees to.
  std::vector<uint64_t> held;
  for (int i = 0; i < function.kernel.parameters; ++i) held.push_back(*static_cast<uint64_t*>(parameters[i]));
  const char* seed = getenv("EMULATED_SEED");
  const unsigned order = seed ? atoi(seed) : 0;
  return put(stream, [&function, &device, config, held, order]() mutable {
    const char* fault = getenv("EMULATED_FAULT");
    if (fault && strstr(function.kernel.name, fault)) return cudaErrorIllegalAddress;
    std::vector<void*> places;
    for (uint64_t& each : held) places.push_back(&each);
    device.milliseconds += 1;
    const cudaError_t status = run(function, places.data(), config, order);
    check_guards(device, function.kernel.name);
    return status;
  });
}
}  // namespace emulated

// For who stores the code: the name that `load` looks for.
extern "C" unsigned long long emulated_image_hash(const void* image, size_t bytes) {
  return emulated::hash_of(image, bytes);
}
