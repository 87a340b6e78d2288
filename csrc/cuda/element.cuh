// Elements of any dtype to and from the type computed in, one at a time or a pack at once.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "common/types.h"

namespace vae_fast::device {

template <class S>
constexpr DType kDTypeOf = DType::float32;
template <>
constexpr DType kDTypeOf<double> = DType::float64;
template <>
constexpr DType kDTypeOf<__half> = DType::float16;
template <>
constexpr DType kDTypeOf<__nv_bfloat16> = DType::bfloat16;

// What elements of S are computed in.
template <class S>
struct ComputeOf {
  using Type = float;
};
template <>
struct ComputeOf<double> {
  using Type = double;
};
template <class S>
using Compute = typename ComputeOf<S>::Type;

template <class T>
__device__ __forceinline__ T widen(double a) {
  return static_cast<T>(a);
}
template <class T>
__device__ __forceinline__ T widen(float a) {
  return static_cast<T>(a);
}
template <class T>
__device__ __forceinline__ T widen(__half a) {
  return static_cast<T>(__half2float(a));
}
template <class T>
__device__ __forceinline__ T widen(__nv_bfloat16 a) {
  return static_cast<T>(__bfloat162float(a));
}

template <class T>
__device__ __forceinline__ void narrow(T a, double& to) {
  to = static_cast<double>(a);
}
template <class T>
__device__ __forceinline__ void narrow(T a, float& to) {
  to = static_cast<float>(a);
}
template <class T>
__device__ __forceinline__ void narrow(T a, __half& to) {
  to = __float2half_rn(static_cast<float>(a));
}
template <class T>
__device__ __forceinline__ void narrow(T a, __nv_bfloat16& to) {
  to = __float2bfloat16_rn(static_cast<float>(a));
}

// One element whose dtype is known at run time.
template <class T>
__device__ __forceinline__ T load_any(const void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::float64: return widen<T>(static_cast<const double*>(data)[index]);
    case DType::float32: return widen<T>(static_cast<const float*>(data)[index]);
    case DType::float16: return widen<T>(static_cast<const __half*>(data)[index]);
    default: return widen<T>(static_cast<const __nv_bfloat16*>(data)[index]);
  }
}

template <class T>
__device__ __forceinline__ void store_any(T value, void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::float64: return narrow(value, static_cast<double*>(data)[index]);
    case DType::float32: return narrow(value, static_cast<float*>(data)[index]);
    case DType::float16: return narrow(value, static_cast<__half*>(data)[index]);
    default: return narrow(value, static_cast<__nv_bfloat16*>(data)[index]);
  }
}

// P consecutive elements, moved in as few accesses as there can be: 16 bytes each, or 8 for a pack
// of 8 bytes.
template <class S, int P>
struct Pack {
  static constexpr int kBytes = P * static_cast<int>(sizeof(S));
  static constexpr int kAccess = kBytes < 16 ? kBytes : 16;
  static_assert(kBytes % kAccess == 0, "a pack is moved in whole accesses");

  S at[P];

  __device__ __forceinline__ static bool aligned(const S* p) {
    return reinterpret_cast<uintptr_t>(p) % kAccess == 0;
  }

  __device__ __forceinline__ void load(const S* p) {
    using Word = std::conditional_t<kAccess == 16, uint4, uint2>;
    Word words[kBytes / kAccess];
#pragma unroll
    for (int i = 0; i < kBytes / kAccess; ++i)
      words[i] = __ldg(reinterpret_cast<const Word*>(p) + i);
    memcpy(at, words, kBytes);
  }
  __device__ __forceinline__ void store(S* p) const {
    using Word = std::conditional_t<kAccess == 16, uint4, uint2>;
    Word words[kBytes / kAccess];
    memcpy(words, at, kBytes);
    // By name: plain stores would be split up and joined with those of a pack that is not whole.
#pragma unroll
    for (int i = 0; i < kBytes / kAccess; ++i) __stwb(reinterpret_cast<Word*>(p) + i, words[i]);
  }

  // Elements [low, high) of the pack; the others are 0.
  __device__ __forceinline__ void load(const S* p, int low, int high) {
#pragma unroll
    for (int i = 0; i < P; ++i) at[i] = i >= low && i < high ? p[i] : S{};
  }
  __device__ __forceinline__ void store(S* p, int low, int high) const {
#pragma unroll
    for (int i = 0; i < P; ++i)
      if (i >= low && i < high) p[i] = at[i];
  }
};

}  // namespace vae_fast::device
