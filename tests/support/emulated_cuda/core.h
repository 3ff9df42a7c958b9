// The emulated driver's inside: devices, memory, streams, events, captures and modules.
//
// Every function here runs with `lock` held. What is refused, and with which error, follows the CUDA 13 manuals:
// "Driver API", "Runtime API" and, for captures, the programming guide's "Prohibited and unhandled operations".
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace emulated {
struct Card {
  const char* name;
  int major, minor, multiprocessors, shared_optin, shared_multiprocessor, l2_bytes;
};

struct Device;
struct Stream;
struct Capture;
using Work = std::function<cudaError_t()>;

// A piece of work in a stream: done once its stream's earlier ones and those of `after` are.
struct Operation {
  Work work;
  std::vector<std::shared_ptr<Operation>> after;
  Stream* stream;
  bool done;
};
using Queued = std::shared_ptr<Operation>;

struct Allocation {
  uintptr_t begin, bytes;         // what the caller has
  uintptr_t pages, page_bytes;    // what is mapped for it, with nothing on both sides
};

struct Stream {
  Device* device;
  bool blocking, destroyed;
  std::deque<Queued> queue;
  Queued last;
  Capture* capture;
  std::vector<int> frontier;  // nodes of the capture that the next one comes after
};

// A node's place in the graph is its number.
struct Node { Work work; std::vector<int> after; };
struct Graph { Device* device; std::vector<Node> nodes; };

struct Capture {
  Graph graph;
  cudaStreamCaptureMode mode;
  unsigned long thread;
  Stream* origin;
  std::set<Stream*> streams;
  bool invalid;
};

struct Event {
  Device* device;
  bool recorded;
  Queued operation;
  std::shared_ptr<double> time;
  Capture* capture;
  std::vector<int> nodes;
};

struct Kernel {
  const char* name;
  int parameters, max_threads, cluster;
};
struct Module;
struct Function {
  Module* module;
  Kernel kernel;
  int index, dynamic_shared;
};
struct Module {
  Device* device;
  void* library;
  int (*run)(int, void**, const unsigned*, const unsigned*, size_t, unsigned);
  std::map<std::string, Function> functions;
};

struct Device {
  int index;
  Card card;
  size_t memory, used;
  bool started;
  cudaError_t error;    // sticky
  double milliseconds;  // that work has taken: one for every kernel, copy and fill, whatever it does
  uintptr_t arena, arena_end, next;
  std::map<uintptr_t, Allocation> allocations;
  Stream legacy;
  std::set<Stream*> streams;
  std::set<Module*> modules;
};

extern std::recursive_mutex& lock;
extern thread_local int current;  // device of this thread; -1 before the first call that needs one

// Devices
std::vector<Device>& devices();
cudaError_t initialise();         // cuInit; an error in a child of fork
bool initialised();
cudaError_t start(Device** out);  // the thread's device with its context; its sticky error
bool attribute(const Card& card, int which, int* value);
cudaError_t poison(Device& device, cudaError_t error);

// Memory
cudaError_t allocate(Device& device, size_t bytes, void** out);
cudaError_t release(void* pointer);
const Allocation* allocation_of(const void* pointer, Device** owner);
bool is_device(const void* pointer);
bool is_pinned(const void* pointer, size_t bytes);
cudaError_t allocate_host(size_t bytes, void** out);
cudaError_t release_host(void* pointer);
void check_guards(const Device& device, const char* who);
struct Access {  // while one lives, the device's memory can be touched
  explicit Access(Device& device);
  ~Access();
  Device& device;
};

// Streams
Stream* stream_of(cudaStream_t handle, Device& device);  // null for a handle of none
cudaError_t make_stream(Device& device, bool blocking, Stream** out);
cudaError_t destroy_stream(Stream* stream);
cudaError_t put(Stream* stream, Work work, std::vector<Queued> after = {});
cudaError_t wait(Stream* stream);        // runs what is in it
cudaError_t wait(const Queued& operation);
cudaError_t wait(Device& device);
cudaError_t may_query(Stream* stream);   // whether its state may be asked for

// Events
extern std::set<Event*> events;
cudaError_t record(Event* event, Stream* stream);
cudaError_t wait_event(Stream* stream, Event* event);

// Captures and graphs
extern std::set<Capture*> captures;
extern thread_local cudaStreamCaptureMode thread_mode;  // what captures forbid this thread
extern std::set<Graph*> graphs, replayable;
cudaError_t unsafe_call();               // whether this thread may call what captures forbid
void invalidate(Capture* capture);
cudaError_t use_legacy(Device& device);  // whether a blocking stream's capture forbids it
cudaError_t begin_capture(Stream* stream, cudaStreamCaptureMode mode);
cudaError_t end_capture(Stream* stream, Graph** out);
cudaError_t add_node(Stream* stream, Work work);
Work replay(const Graph& graph);

// Kernels
cudaError_t load(Device& device, const void* image, Module** out);
cudaError_t launch(Function& function, const CUlaunchConfig& config, void** parameters, void** extra);
}  // namespace emulated
