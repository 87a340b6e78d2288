// As much of CUDA as csrc/cuda/ uses, for a C++ compiler: in place of NVIDIA's header of this name.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "executor.h"

#define __global__
#define __device__
#define __host__
#define __shared__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};

// What a GPU would stop at: an access whose address is no multiple of its size.
template <class T>
inline void check_alignment(const T* p, const char* what) {
  if (reinterpret_cast<uintptr_t>(p) % sizeof(T) == 0) return;
  throw std::runtime_error("misaligned address: a " + std::string(what) + " of " +
                           std::to_string(sizeof(T)) + " bytes");
}
template <class T>
inline T __ldg(const T* p) {
  check_alignment(p, "load");
  return *p;
}
template <class T>
inline void __stwb(T* p, T value) {
  check_alignment(p, "store");
  *p = value;
}

inline void __syncthreads(int line = __builtin_LINE()) { cuda_host::wait_for_block(line); }

template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int line = __builtin_LINE()) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = cuda_host::exchange(mask, bits, lane_mask, line);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline void sincospi(double x, double* sine, double* cosine) {
  const double angle = 3.14159265358979323846 * (x - 2.0 * std::nearbyint(0.5 * x));
  *sine = std::sin(angle);
  *cosine = std::cos(angle);
}

using cudaStream_t = void*;
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101
};
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
using cudaLaunchConfig_t = cuda_host::Config;

inline const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorInvalidConfiguration ? "cudaErrorInvalidConfiguration"
                                                : "cudaErrorInvalidDevice";
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorInvalidConfiguration ? "invalid configuration argument"
                                                : "invalid device ordinal";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaErrorInvalidDevice; }
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = cuda_host::kMultiprocessors;
  return cudaSuccess;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  if (!cuda_host::can_launch(*config)) return cudaErrorInvalidConfiguration;
  if (cuda_host::options().runs) cuda_host::run(*config, [&] { kernel(arguments...); });
  return cudaSuccess;
}
