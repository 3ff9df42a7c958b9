// libcuda.so.1: what TVM's runtime and tvmconv/hardware/cuda_driver.py call of the driver API.
#include <cstring>
#include <map>

#include "core.h"

using namespace emulated;
#define LOCKED std::lock_guard<std::recursive_mutex> held(lock)
#define API extern "C" __attribute__((visibility("default")))

// The two APIs number errors alike.
static CUresult driver_error(cudaError_t status) { return static_cast<CUresult>(status); }
static const std::map<int, std::pair<const char*, const char*>> ERRORS = {
    {0, {"CUDA_SUCCESS", "no error"}},
    {1, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
    {2, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
    {3, {"CUDA_ERROR_NOT_INITIALIZED", "initialization error"}},
    {100, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
    {101, {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}},
    {200, {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"}},
    {201, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
    {209, {"CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"}},
    {301, {"CUDA_ERROR_FILE_NOT_FOUND", "file not found"}},
    {400, {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}},
    {500, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
    {700, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"}},
    {701, {"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"}},
    {702, {"CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"}},
    {716, {"CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"}},
    {719, {"CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"}},
    {801, {"CUDA_ERROR_NOT_SUPPORTED", "operation not supported"}},
    {900, {"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"}},
    {901, {"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
           "operation failed due to a previous error during capture"}},
    {906, {"CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing blocking stream"}},
};

static CUresult text(CUresult error, const char** out, bool name) {
  auto found = ERRORS.find(error);
  *out = found == ERRORS.end() ? nullptr : name ? found->second.first : found->second.second;
  return *out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
API CUresult CUDAAPI cuGetErrorName(CUresult error, const char** out) { return text(error, out, true); }
API CUresult CUDAAPI cuGetErrorString(CUresult error, const char** out) { return text(error, out, false); }

API CUresult CUDAAPI cuInit(unsigned flags) {
  LOCKED;
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  return driver_error(initialise());
}
API CUresult CUDAAPI cuDriverGetVersion(int* version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}
API CUresult CUDAAPI cuDeviceGetCount(int* count) {
  LOCKED;
  if (!initialised()) return CUDA_ERROR_NOT_INITIALIZED;
  *count = devices().size();
  return CUDA_SUCCESS;
}
static bool exists(CUdevice device) { return device >= 0 && size_t(device) < devices().size(); }
API CUresult CUDAAPI cuDeviceGet(CUdevice* device, int ordinal) {
  LOCKED;
  if (!exists(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}
API CUresult CUDAAPI cuDeviceGetName(char* name, int length, CUdevice device) {
  LOCKED;
  if (!exists(device)) return CUDA_ERROR_INVALID_DEVICE;
  strncpy(name, devices()[device].card.name, length);
  name[length - 1] = 0;
  return CUDA_SUCCESS;
}
API CUresult CUDAAPI cuDeviceTotalMem(size_t* bytes, CUdevice device) {  // cuDeviceTotalMem_v2
  LOCKED;
  if (!exists(device)) return CUDA_ERROR_INVALID_DEVICE;
  *bytes = devices()[device].memory;
  return CUDA_SUCCESS;
}
API CUresult CUDAAPI cuDeviceGetAttribute(int* value, CUdevice_attribute which, CUdevice device) {
  LOCKED;
  if (!exists(device)) return CUDA_ERROR_INVALID_DEVICE;
  return attribute(devices()[device].card, which, value) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// The context is the current device's own; a thread that never named one has none.
static CUresult context(Device** device) {
  if (emulated::current < 0) return CUDA_ERROR_INVALID_CONTEXT;
  *device = &devices()[emulated::current];
  if (!(*device)->started) return CUDA_ERROR_INVALID_CONTEXT;
  return driver_error((*device)->error);
}
static bool known(Module* module) {
  for (Device& device : devices())
    if (device.modules.count(module)) return true;
  return false;
}
API CUresult CUDAAPI cuModuleLoadData(CUmodule* out, const void* image) {
  LOCKED;
  Device* device;
  CUresult status = context(&device);
  if (status != CUDA_SUCCESS) return status;
  status = driver_error(unsafe_call());
  if (status != CUDA_SUCCESS) return status;
  return driver_error(load(*device, image, reinterpret_cast<Module**>(out)));
}
API CUresult CUDAAPI cuModuleUnload(CUmodule handle) {
  LOCKED;
  auto* module = reinterpret_cast<Module*>(handle);
  if (!known(module)) return CUDA_ERROR_INVALID_HANDLE;
  Device& device = *module->device;
  const cudaError_t status = wait(device);
  device.modules.erase(module);  // its functions stay, for graphs that hold them
  return driver_error(status);
}
API CUresult CUDAAPI cuModuleGetFunction(CUfunction* out, CUmodule handle, const char* name) {
  LOCKED;
  auto* module = reinterpret_cast<Module*>(handle);
  if (!known(module)) return CUDA_ERROR_INVALID_HANDLE;
  auto found = module->functions.find(name);
  if (found == module->functions.end()) return CUDA_ERROR_NOT_FOUND;
  *out = reinterpret_cast<CUfunction>(&found->second);
  return driver_error(module->device->error);
}
API CUresult CUDAAPI cuFuncSetAttribute(CUfunction handle, CUfunction_attribute which, int value) {
  LOCKED;
  auto* function = reinterpret_cast<Function*>(handle);
  if (!known(function->module)) return CUDA_ERROR_INVALID_HANDLE;
  if (which != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_ERROR_NOT_SUPPORTED;
  if (value < 0 || value > function->module->device->card.shared_optin) return CUDA_ERROR_INVALID_VALUE;
  function->dynamic_shared = value;
  return CUDA_SUCCESS;
}
API CUresult CUDAAPI cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction handle, void** parameters,
                                      void** extra) {
  LOCKED;
  Device* device;
  const CUresult status = context(&device);
  if (status != CUDA_SUCCESS) return status;
  auto* function = reinterpret_cast<Function*>(handle);
  if (!known(function->module)) return CUDA_ERROR_INVALID_HANDLE;
  return driver_error(launch(*function, *config, parameters, extra));
}
API CUresult CUDAAPI cuTensorMapEncodeTiled(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                                            const cuuint64_t*, const cuuint32_t*, const cuuint32_t*,
                                            CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                                            CUtensorMapFloatOOBfill) {
  return CUDA_ERROR_NOT_SUPPORTED;  // no kernel of ours has a tensor map
}
