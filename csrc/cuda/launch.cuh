// The one way kernels are launched, and what is asked of the device for it.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <stdexcept>
#include <string>

#include "cuda/kernels.h"

namespace vae_fast::device {

constexpr int kThreads = 256;  // of a block, in every kernel

// The compute capability that code is compiled for, times ten: ptxas spills on some where it does
// not on others.
#if defined(__CUDA_ARCH__)
constexpr int kCapability = __CUDA_ARCH__ / 10;
#else
constexpr int kCapability = 0;
#endif

inline void check(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  throw std::runtime_error("vae_fast: " + what + ": " + cudaGetErrorName(status) + ", " +
                           cudaGetErrorString(status));
}

// Makes the caller's device current, and the one before it again at the end.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&before_), "the current device cannot be read");
    if (device == before_) return;
    check(cudaSetDevice(device), "device " + std::to_string(device) + " cannot be used");
    changed_ = true;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

// Streaming multiprocessors of a device, asked for once.
inline int multiprocessors(int device) {
  constexpr int kDevices = 64;
  static std::atomic<int> known[kDevices] = {};
  int count = device < kDevices ? known[device].load() : 0;
  if (count > 0) return count;
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
        "the device's properties cannot be read");
  if (device < kDevices) known[device] = count;
  return count;
}

// Blocks that keep a device busy: further work is done by the same blocks in turn. As many rounds,
// none of them short, whether a multiprocessor has two, three or four at a time.
inline int64_t enough_blocks(int device) {
  return 24 * static_cast<int64_t>(multiprocessors(device));
}

// kernel<<<grid, kThreads, shared>>>(args) on the context's stream and current device. An error is
// looked for without waiting: one of the kernel's own run shows later, in whoever waits next.
template <class Args>
void launch(const char* name, void (*kernel)(Args), dim3 grid, size_t shared,
            const Context& context, const Args& args) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = shared;
  config.stream = static_cast<cudaStream_t>(context.stream);
  const cudaError_t status = cudaLaunchKernelEx(&config, kernel, args);
  if (status == cudaSuccess) return;
  cudaGetLastError();  // ours, and reported here: the next call must not find it
  check(status, "kernel " + std::string(name) + ", grid " + std::to_string(grid.x) + " x " +
                    std::to_string(grid.y) + ", " + std::to_string(kThreads) + " threads, " +
                    std::to_string(shared) + " bytes of shared memory, device " +
                    std::to_string(context.device));
}

}  // namespace vae_fast::device
