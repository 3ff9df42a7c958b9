// Streams are lazy: work runs when something waits for it, and not before, so that a missing wait shows.
#include <algorithm>

#include "core.h"

namespace emulated {
std::set<Event*> events;

Stream* stream_of(cudaStream_t handle, Device& device) {
  if (handle == nullptr || handle == cudaStreamLegacy) return &device.legacy;
  auto* stream = reinterpret_cast<Stream*>(handle);
  for (Device& each : devices())
    if (each.streams.count(stream)) return stream->destroyed ? nullptr : stream;
  return nullptr;
}

cudaError_t make_stream(Device& device, bool blocking, Stream** out) {
  *out = new Stream{};
  (*out)->device = &device;
  (*out)->blocking = blocking;
  device.streams.insert(*out);
  return cudaSuccess;
}

// Its work is still done; the stream itself stays behind, small as it is.
cudaError_t destroy_stream(Stream* stream) {
  if (stream->capture) {
    invalidate(stream->capture);
    return cudaErrorStreamCaptureUnsupported;
  }
  stream->destroyed = true;
  return cudaSuccess;
}

static bool is_legacy(const Stream* stream) { return stream == &stream->device->legacy; }

cudaError_t put(Stream* stream, Work work, std::vector<Queued> after) {
  Device& device = *stream->device;
  if (device.error != cudaSuccess) return device.error;
  if (stream->capture) return add_node(stream, std::move(work));
  const auto follow = [&](Stream& other) {
    if (other.last && !other.last->done) after.push_back(other.last);
  };
  if (is_legacy(stream)) {
    const cudaError_t status = use_legacy(device);
    if (status != cudaSuccess) return status;
    for (Stream* other : device.streams)
      if (other->blocking) follow(*other);
  } else if (stream->blocking) {
    follow(device.legacy);
  }
  stream->last = std::make_shared<Operation>(Operation{std::move(work), std::move(after), stream, false});
  stream->queue.push_back(stream->last);
  return cudaSuccess;
}

static cudaError_t run_until(const Queued& wanted) {
  Stream* stream = wanted->stream;
  Access access(*stream->device);
  while (!wanted->done) {
    const Queued next = stream->queue.front();
    for (const Queued& before : next->after) {
      const cudaError_t status = before->done ? cudaSuccess : run_until(before);
      if (status != cudaSuccess) return status;
    }
    if (next->done) continue;
    stream->queue.pop_front();
    const cudaError_t status = next->work ? next->work() : cudaSuccess;
    next->done = true;
    next->work = nullptr;
    if (status != cudaSuccess) return poison(*stream->device, status);
  }
  return cudaSuccess;
}

cudaError_t wait(const Queued& operation) {
  const cudaError_t error = operation->stream->device->error;
  if (error != cudaSuccess) return error;
  return operation->done ? cudaSuccess : run_until(operation);
}

cudaError_t may_query(Stream* stream) {
  if (stream->capture) {
    invalidate(stream->capture);
    return cudaErrorStreamCaptureUnsupported;
  }
  return is_legacy(stream) ? use_legacy(*stream->device) : cudaSuccess;
}

cudaError_t wait(Stream* stream) {
  if (stream->device->error != cudaSuccess) return stream->device->error;
  const cudaError_t status = may_query(stream);
  if (status != cudaSuccess) return status;
  return stream->last ? wait(stream->last) : cudaSuccess;
}

cudaError_t wait(Device& device) {
  if (device.error != cudaSuccess) return device.error;
  cudaError_t status = device.legacy.last ? wait(device.legacy.last) : cudaSuccess;
  for (Stream* stream : device.streams)
    if (status == cudaSuccess && stream->last) status = wait(stream->last);
  return status;
}

cudaError_t record(Event* event, Stream* stream) {
  if (event->device != stream->device) return cudaErrorInvalidResourceHandle;
  if (stream->capture) {
    if (stream->capture->invalid) return cudaErrorStreamCaptureInvalidated;
    event->capture = stream->capture;
    event->nodes = stream->frontier;
    event->recorded = false;
    return cudaSuccess;
  }
  auto time = std::make_shared<double>(0);
  Device& device = *stream->device;
  const cudaError_t status = put(stream, [time, &device] {
    *time = device.milliseconds;
    return cudaSuccess;
  });
  if (status != cudaSuccess) return status;
  event->recorded = true;
  event->capture = nullptr;
  event->operation = stream->last;
  event->time = time;
  return cudaSuccess;
}

cudaError_t wait_event(Stream* stream, Event* event) {
  Capture* own = stream->capture;
  if (event->capture) {
    Capture* other = event->capture;
    if (own && own != other) {  // two graphs cannot be merged
      invalidate(own);
      invalidate(other);
      return cudaErrorStreamCaptureMerge;
    }
    if (other->invalid) return cudaErrorStreamCaptureInvalidated;
    if (is_legacy(stream)) {
      invalidate(other);
      return cudaErrorStreamCaptureImplicit;
    }
    stream->capture = other;
    other->streams.insert(stream);
    for (int node : event->nodes)
      if (!std::count(stream->frontier.begin(), stream->frontier.end(), node)) stream->frontier.push_back(node);
    return cudaSuccess;
  }
  if (!event->recorded) return cudaSuccess;  // nothing to wait for
  if (own) {
    invalidate(own);
    return cudaErrorStreamCaptureIsolation;
  }
  return put(stream, nullptr, {event->operation});
}
}  // namespace emulated
