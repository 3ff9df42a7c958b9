// Stream capture and graphs, with what the manuals forbid meanwhile.
#include <pthread.h>

#include <algorithm>
#include <functional>

#include "core.h"

namespace emulated {
std::set<Capture*> captures;
std::set<Graph*> graphs, replayable;

void invalidate(Capture* capture) { capture->invalid = true; }

thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

// cudaThreadExchangeStreamCaptureMode: a thread is prohibited from potentially unsafe calls by a capture of its
// own that is not relaxed, and by one of any other thread that is global; in thread-local mode by its own alone,
// in relaxed mode by none.
cudaError_t unsafe_call() {
  cudaError_t status = cudaSuccess;
  if (thread_mode == cudaStreamCaptureModeRelaxed) return status;
  for (Capture* each : captures) {
    const bool mine = each->thread == pthread_self() && each->mode != cudaStreamCaptureModeRelaxed;
    const bool others = each->mode == cudaStreamCaptureModeGlobal && thread_mode == cudaStreamCaptureModeGlobal;
    if (!mine && !others) continue;
    invalidate(each);
    status = cudaErrorStreamCaptureUnsupported;
  }
  return status;
}

cudaError_t use_legacy(Device& device) {
  cudaError_t status = cudaSuccess;
  for (Stream* stream : device.streams) {
    if (!stream->blocking || !stream->capture) continue;
    invalidate(stream->capture);
    status = cudaErrorStreamCaptureImplicit;
  }
  return status;
}

cudaError_t begin_capture(Stream* stream, cudaStreamCaptureMode mode) {
  Device& device = *stream->device;
  if (stream == &device.legacy) return cudaErrorStreamCaptureUnsupported;
  if (stream->capture) return cudaErrorIllegalState;
  if (mode < cudaStreamCaptureModeGlobal || mode > cudaStreamCaptureModeRelaxed) return cudaErrorInvalidValue;
  auto* made = new Capture{{&device, {}}, mode, pthread_self(), stream, {stream}, false};
  stream->capture = made;
  stream->frontier.clear();
  captures.insert(made);
  return cudaSuccess;
}

static bool all_joined(const Capture& capture) {
  std::set<int> reached;
  std::function<void(int)> reach = [&](int node) {
    if (reached.insert(node).second)
      for (int before : capture.graph.nodes[node].after) reach(before);
  };
  for (int node : capture.origin->frontier) reach(node);
  for (Stream* stream : capture.streams)
    for (int node : stream->frontier)
      if (!reached.count(node)) return false;
  return true;
}

cudaError_t end_capture(Stream* stream, Graph** out) {
  *out = nullptr;
  Capture* capture = stream->capture;
  if (!capture) return cudaErrorIllegalState;
  if (stream != capture->origin) {
    invalidate(capture);
    return cudaErrorStreamCaptureUnmatched;
  }
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != pthread_self())
    return cudaErrorStreamCaptureWrongThread;
  cudaError_t status = cudaSuccess;
  if (capture->invalid) status = cudaErrorStreamCaptureInvalidated;
  else if (!all_joined(*capture)) status = cudaErrorStreamCaptureUnjoined;
  if (status == cudaSuccess) graphs.insert(*out = new Graph(std::move(capture->graph)));
  for (Stream* each : capture->streams) {
    each->capture = nullptr;
    each->frontier.clear();
  }
  for (Event* event : events)
    if (event->capture == capture) event->capture = nullptr;
  captures.erase(capture);
  delete capture;
  return status;
}

cudaError_t add_node(Stream* stream, Work work) {
  if (stream->capture->invalid) return cudaErrorStreamCaptureInvalidated;
  auto& nodes = stream->capture->graph.nodes;
  nodes.push_back({std::move(work), stream->frontier});
  stream->frontier = {int(nodes.size()) - 1};
  return cudaSuccess;
}

// In an order that the dependencies allow, but not that of the capture.
Work replay(const Graph& graph) {
  std::vector<Work> order;
  std::vector<bool> placed(graph.nodes.size());
  std::function<void(int)> place = [&](int number) {
    if (placed[number]) return;
    placed[number] = true;
    const auto& before = graph.nodes[number].after;
    for (auto each = before.rbegin(); each != before.rend(); ++each) place(*each);
    order.push_back(graph.nodes[number].work);
  };
  for (int number = int(graph.nodes.size()) - 1; number >= 0; --number) place(number);
  return [order] {
    for (const Work& work : order) {
      const cudaError_t status = work ? work() : cudaSuccess;
      if (status != cudaSuccess) return status;
    }
    return cudaSuccess;
  };
}
}  // namespace emulated
