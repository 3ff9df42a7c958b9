// libcudart.so.13: what TVM's runtime and tvmconv/runtime call of the runtime API.
#include <algorithm>
#include <cstring>

#include "core.h"

using namespace emulated;
#define LOCKED std::lock_guard<std::recursive_mutex> held(lock)
#define API extern "C" __attribute__((visibility("default")))
#define CUDART cudaError_t CUDARTAPI

static thread_local cudaError_t last = cudaSuccess;
static cudaError_t said(cudaError_t status) {
  if (status != cudaSuccess) last = status;
  return status;
}
// In front of what needs a context.
#define DEVICE                                  \
  LOCKED;                                       \
  Device* device;                               \
  {                                             \
    const cudaError_t error = start(&device);   \
    if (error != cudaSuccess) return said(error); \
  }
#define TRY(call)                               \
  {                                             \
    const cudaError_t error = (call);           \
    if (error != cudaSuccess) return said(error); \
  }
#define STREAM(handle)                                                    \
  Stream* stream = stream_of(handle, *device);                            \
  if (!stream) return said(cudaErrorInvalidResourceHandle)

// Errors
API CUDART cudaGetLastError() {
  LOCKED;
  const cudaError_t found = emulated::current >= 0 && devices()[emulated::current].error != cudaSuccess
                                ? devices()[emulated::current].error : last;
  last = cudaSuccess;  // one that spoilt the context stays
  return found;
}
API CUDART cudaPeekAtLastError() {
  const cudaError_t found = cudaGetLastError();
  last = found;
  return found;
}
API const char* CUDARTAPI cudaGetErrorName(cudaError_t error) {
  static thread_local char name[32];
  const char* known = nullptr;
  if (cuGetErrorName(static_cast<CUresult>(error), &known) == CUDA_SUCCESS) return known;
  snprintf(name, sizeof name, "cudaError %d", int(error));
  return name;
}
API const char* CUDARTAPI cudaGetErrorString(cudaError_t error) {
  const char* known = nullptr;
  return cuGetErrorString(static_cast<CUresult>(error), &known) == CUDA_SUCCESS ? known : "unrecognized error code";
}

// Devices
API CUDART cudaGetDeviceCount(int* count) {
  LOCKED;
  TRY(initialise());
  *count = devices().size();
  return cudaSuccess;
}
API CUDART cudaGetDevice(int* device) {
  LOCKED;
  *device = std::max(0, emulated::current);
  return cudaSuccess;
}
API CUDART cudaSetDevice(int device) {
  LOCKED;
  TRY(initialise());
  if (device < 0 || size_t(device) >= devices().size()) return said(cudaErrorInvalidDevice);
  emulated::current = device;
  devices()[device].started = true;
  return said(devices()[device].error);
}
API CUDART cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int device) {
  LOCKED;
  TRY(initialise());
  if (device < 0 || size_t(device) >= devices().size()) return said(cudaErrorInvalidDevice);
  return said(attribute(devices()[device].card, which, value) ? cudaSuccess : cudaErrorInvalidValue);
}
API CUDART cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  LOCKED;
  TRY(initialise());
  if (device < 0 || size_t(device) >= devices().size()) return said(cudaErrorInvalidDevice);
  const Device& found = devices()[device];
  memset(properties, 0, sizeof *properties);
  strncpy(properties->name, found.card.name, sizeof properties->name - 1);
  properties->totalGlobalMem = found.memory;
  properties->major = found.card.major;
  properties->minor = found.card.minor;
  properties->multiProcessorCount = found.card.multiprocessors;
  properties->l2CacheSize = found.card.l2_bytes;
  properties->sharedMemPerBlock = 48 << 10;
  properties->sharedMemPerBlockOptin = found.card.shared_optin;
  properties->regsPerBlock = 65536;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  return cudaSuccess;
}
API CUDART cudaDeviceSynchronize() {
  DEVICE;
  for (Stream* each : device->streams)
    if (each->capture) TRY(may_query(each));
  return said(wait(*device));
}

// Memory
API CUDART cudaMalloc(void** pointer, size_t bytes) {
  DEVICE;
  TRY(unsafe_call());
  return said(allocate(*device, bytes, pointer));
}
API CUDART cudaFree(void* pointer) {
  DEVICE;
  TRY(unsafe_call());
  Device* owner = device;
  if (pointer && !allocation_of(pointer, &owner)) return said(cudaErrorInvalidValue);
  TRY(wait(*owner));
  return said(release(pointer));
}
API CUDART cudaMallocHost(void** pointer, size_t bytes) {
  DEVICE;
  TRY(unsafe_call());
  return said(allocate_host(bytes, pointer));
}
API CUDART cudaFreeHost(void* pointer) {
  DEVICE;
  TRY(unsafe_call());
  TRY(wait(*device));
  return said(release_host(pointer));
}
API CUDART cudaMemGetInfo(size_t* available, size_t* total) {
  DEVICE;
  *total = device->memory;
  *available = device->memory - device->used;
  return cudaSuccess;
}

// The device that a whole range lies in; null in the host's memory. False where it runs out of an allocation.
static bool place(const void* begin, size_t bytes, Device** owner) {
  *owner = nullptr;
  if (!is_device(begin)) return true;
  const Allocation* found = allocation_of(begin, owner);
  return found && reinterpret_cast<uintptr_t>(begin) + bytes <= found->begin + found->bytes;
}

static cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, Stream* stream) {
  Device *target, *source;
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return cudaErrorInvalidMemcpyDirection;
  if (bytes == 0) return cudaSuccess;
  if (!place(to, bytes, &target) || !place(from, bytes, &source)) return cudaErrorInvalidValue;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind != cudaMemcpyDefault && (to_device != !!target || from_device != !!source)) return cudaErrorInvalidValue;
  const bool staged = !source && !is_pinned(from, bytes), waits = !target && !is_pinned(to, bytes);
  if (stream->capture && (staged || waits)) {
    invalidate(stream->capture);
    return cudaErrorStreamCaptureUnsupported;
  }
  auto* begin = static_cast<const char*>(from);
  auto held = std::make_shared<std::vector<char>>();  // the driver's staging buffer
  if (staged) held->assign(begin, begin + bytes);
  const cudaError_t status = put(stream, [=] {
    stream->device->milliseconds += 1;
    Access first(target ? *target : *stream->device), second(source ? *source : *stream->device);
    memmove(to, staged ? held->data() : from, bytes);
    return cudaSuccess;
  });
  if (status != cudaSuccess) return status;
  return waits ? wait(stream) : cudaSuccess;  // returns once pageable memory has it
}
API CUDART cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t handle) {
  DEVICE;
  STREAM(handle);
  return said(copy(to, from, bytes, kind, stream));
}
API CUDART cudaMemcpyPeerAsync(void* to, int target, const void* from, int source, size_t bytes, cudaStream_t handle) {
  DEVICE;
  STREAM(handle);
  Device *one, *other;
  if (!place(to, bytes, &one) || !place(from, bytes, &other) || !one || !other || one->index != target ||
      other->index != source)
    return said(cudaErrorInvalidValue);
  return said(copy(to, from, bytes, cudaMemcpyDeviceToDevice, stream));
}
API CUDART cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t handle) {
  DEVICE;
  STREAM(handle);
  Device* owner;
  if (!place(to, bytes, &owner) || (bytes && !owner)) return said(cudaErrorInvalidValue);
  return said(put(stream, [=] {
    owner->milliseconds += 1;
    Access access(*owner);
    memset(to, value, bytes);
    return cudaSuccess;
  }));
}

// Streams
API CUDART cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
  DEVICE;
  if (flags > cudaStreamNonBlocking) return said(cudaErrorInvalidValue);
  return said(make_stream(*device, flags != cudaStreamNonBlocking, reinterpret_cast<Stream**>(out)));
}
API CUDART cudaStreamCreate(cudaStream_t* out) { return cudaStreamCreateWithFlags(out, cudaStreamDefault); }
API CUDART cudaStreamDestroy(cudaStream_t handle) {
  DEVICE;
  STREAM(handle);
  if (stream == &device->legacy) return said(cudaErrorInvalidResourceHandle);
  return said(destroy_stream(stream));
}
API CUDART cudaStreamSynchronize(cudaStream_t handle) {
  DEVICE;
  STREAM(handle);
  return said(wait(stream));
}
API CUDART cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned flags) {
  DEVICE;
  STREAM(handle);
  auto* found = reinterpret_cast<Event*>(event);
  if (!events.count(found)) return said(cudaErrorInvalidResourceHandle);
  if (flags) return said(cudaErrorInvalidValue);
  return said(wait_event(stream, found));
}

// Events
API CUDART cudaEventCreate(cudaEvent_t* out) {
  DEVICE;
  auto* made = new Event{device, false, nullptr, nullptr, nullptr, {}};
  events.insert(made);
  *out = reinterpret_cast<cudaEvent_t>(made);
  return cudaSuccess;
}
#define EVENT(name, handle)                     \
  auto* name = reinterpret_cast<Event*>(handle); \
  if (!events.count(name)) return said(cudaErrorInvalidResourceHandle)
API CUDART cudaEventDestroy(cudaEvent_t handle) {
  DEVICE;
  EVENT(event, handle);
  events.erase(event);
  delete event;
  return cudaSuccess;
}
API CUDART cudaEventRecord(cudaEvent_t handle, cudaStream_t where) {
  DEVICE;
  EVENT(event, handle);
  STREAM(where);
  return said(record(event, stream));
}
API CUDART cudaEventSynchronize(cudaEvent_t handle) {
  DEVICE;
  EVENT(event, handle);
  if (event->capture) {
    invalidate(event->capture);
    return said(cudaErrorCapturedEvent);
  }
  return said(event->recorded ? wait(event->operation) : cudaSuccess);
}
API CUDART cudaEventElapsedTime(float* milliseconds, cudaEvent_t first, cudaEvent_t second) {
  DEVICE;
  EVENT(begin, first);
  EVENT(end, second);
  if (!begin->recorded || !end->recorded) return said(cudaErrorInvalidResourceHandle);
  if (!begin->operation->done || !end->operation->done) return said(cudaErrorNotReady);
  *milliseconds = float(*end->time - *begin->time);
  return cudaSuccess;
}

// Captures and graphs
API CUDART cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* out) {
  DEVICE;
  STREAM(handle);
  if (stream == &device->legacy) {  // the capture goes on
    for (Stream* each : device->streams)
      if (each->blocking && each->capture) return said(cudaErrorStreamCaptureImplicit);
  }
  *out = !stream->capture           ? cudaStreamCaptureStatusNone
         : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                    : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
API CUDART cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  DEVICE;
  STREAM(handle);
  return said(begin_capture(stream, mode));
}
API CUDART cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  LOCKED;
  if (*mode < cudaStreamCaptureModeGlobal || *mode > cudaStreamCaptureModeRelaxed)
    return said(cudaErrorInvalidValue);
  std::swap(*mode, thread_mode);
  return cudaSuccess;
}
API CUDART cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* out) {
  DEVICE;
  STREAM(handle);
  return said(end_capture(stream, reinterpret_cast<Graph**>(out)));
}
API CUDART cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t handle, unsigned long long flags) {
  DEVICE;
  auto* graph = reinterpret_cast<Graph*>(handle);
  if (!graphs.count(graph)) return said(cudaErrorInvalidValue);
  if (flags) return said(cudaErrorNotSupported);
  auto* made = new Graph(*graph);
  replayable.insert(made);
  *out = reinterpret_cast<cudaGraphExec_t>(made);
  return cudaSuccess;
}
API CUDART cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t where) {
  DEVICE;
  STREAM(where);
  auto* graph = reinterpret_cast<Graph*>(handle);
  if (!replayable.count(graph)) return said(cudaErrorInvalidValue);
  if (graph->device != stream->device) return said(cudaErrorInvalidResourceHandle);
  return said(put(stream, replay(*graph)));
}
static cudaError_t destroy(std::set<Graph*>& from, void* handle) {
  auto* graph = static_cast<Graph*>(handle);
  if (!from.erase(graph)) return cudaErrorInvalidValue;
  delete graph;
  return cudaSuccess;
}
API CUDART cudaGraphDestroy(cudaGraph_t handle) {
  DEVICE;
  return said(destroy(graphs, handle));
}
API CUDART cudaGraphExecDestroy(cudaGraphExec_t handle) {
  DEVICE;
  return said(destroy(replayable, handle));
}
