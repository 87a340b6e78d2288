// Sums over the threads that share a row, and over a block, in an order that never changes.
#pragma once

#include "cuda/element.cuh"
#include "cuda/launch.cuh"

namespace vae_fast::device {

extern __shared__ double shared_sums[];
constexpr int kWarps = kThreads / 32;

template <class T, int P>
__device__ __forceinline__ T pack_sum(const T (&values)[P]) {
  T sums[P];
#pragma unroll
  for (int i = 0; i < P; ++i) sums[i] = values[i];
#pragma unroll
  for (int width = P / 2; width > 0; width /= 2) {
#pragma unroll
    for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
  }
  return sums[0];
}

// The sum over `lanes` neighbouring threads, a power of two up to a warp, or the whole block; right
// in the first of them. Every thread of the block must come here.
template <class T>
__device__ __forceinline__ T group_sum(T value, int lanes) {
  for (int offset = (lanes < 32 ? lanes : 32) / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xFFFFFFFFu, value, offset);
  if (lanes <= 32) return value;
  if (threadIdx.x % 32 == 0) shared_sums[threadIdx.x / 32] = static_cast<double>(value);
  __syncthreads();
  double total = 0;
  for (int warp = 0; warp < kWarps; ++warp) total += shared_sums[warp];
  __syncthreads();  // the next sum writes there again
  return static_cast<T>(total);
}

// Where a sum over elements goes: the output itself, or working memory for finish().
struct Sum {
  void* data = nullptr;  // null: no sum is asked for
  DType dtype = DType::float64;
  Reduction kind = Reduction::full;

  __device__ __forceinline__ bool is(Reduction other) const {
    return data != nullptr && kind == other;
  }
  __device__ __forceinline__ void put(int64_t index, double value) const {
    store_any(value, data, dtype, index);
  }
};

}  // namespace vae_fast::device
