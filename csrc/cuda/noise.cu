#include <algorithm>

#include "cuda/element.cuh"
#include "cuda/launch.cuh"
#include "cuda/random.cuh"

namespace vae_fast::device {
namespace {

struct Fill {
  void* eps;      // [L, count]
  int64_t count;  // of elements a sample
  int64_t samples;
  uint64_t first;  // index of the first one
  Noise noise;
};

template <class S, int P>
__device__ __forceinline__ Pack<S, P> pack_of(const Compute<S> (&eps)[P]) {
  Pack<S, P> pack;
#pragma unroll
  for (int i = 0; i < P; ++i) narrow(eps[i], pack.at[i]);
  return pack;
}

template <class S, int P>
__global__ void __launch_bounds__(kThreads) noise_kernel(const __grid_constant__ Fill fill) {
  const uint64_t seed = seed_of(fill.noise);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (int64_t sample = blockIdx.y; sample < fill.samples; sample += gridDim.y) {
    S* plane = static_cast<S*>(fill.eps) + sample * fill.count;
    // Packs begin where 16-byte accesses may, which can be before the first element.
    const int64_t head = reinterpret_cast<uintptr_t>(plane) / sizeof(S) % P;
    const int64_t all = (fill.count + head + P - 1) / P;
    const int64_t low = head > 0 ? 1 : 0, high = (fill.count + head) / P;  // whole packs
    const uint64_t first = fill.first - static_cast<uint64_t>(head);
    const auto word = static_cast<uint32_t>(sample);
    Compute<S> eps[P];
    // Where packs are Philox blocks nothing is asked for each of them.
    if (first % 4 == 0) {
      for (int64_t k = thread < low ? thread + stride : thread; k < high; k += stride) {
        whole_blocks(seed, first / 4 + static_cast<uint64_t>(k) * (P / 4), word, eps);
        pack_of<S>(eps).store(plane - head + k * P);
      }
    } else {
      for (int64_t k = thread < low ? thread + stride : thread; k < high; k += stride) {
        make_noise(seed, first + static_cast<uint64_t>(k) * P, word, eps);
        pack_of<S>(eps).store(plane - head + k * P);
      }
    }
    // The first and the last pack, if they are not whole.
    const auto edge = [&](int64_t k) {
      make_noise(seed, first + static_cast<uint64_t>(k) * P, word, eps);
      const int64_t start = k * P - head, left = fill.count - start;
      pack_of<S>(eps).store(plane + start, start < 0 ? static_cast<int>(-start) : 0,
                            left < P ? static_cast<int>(left) : P);
    };
    if (thread == 0 && low > 0) edge(0);
    if (thread == 1 && high < all && high >= low) edge(high);
  }
}

template <class S, int P>
void run(const Fill& fill, const Context& context) {
  const int64_t packs = (fill.count + P - 1) / P + 1;
  const int64_t blocks = std::min((packs + kThreads - 1) / kThreads, enough_blocks(context.device));
  const auto samples = static_cast<unsigned>(std::min<int64_t>(fill.samples, 65535));
  launch("noise", noise_kernel<S, P>, dim3(static_cast<unsigned>(blocks), samples), 0, context,
         fill);
}

}  // namespace

void noise(const NoiseArgs& args, const Context& context) {
  const DeviceGuard guard(context.device);
  const auto cols = static_cast<uint64_t>(args.shape.cols);
  const Fill fill{args.eps.data, args.shape.rows * args.shape.cols, args.shape.samples,
                  args.noise.row_offset * cols, args.noise};
  switch (args.eps.dtype) {
    case DType::float64: return run<double, 4>(fill, context);
    case DType::float32: return run<float, 4>(fill, context);
    case DType::float16: return run<__half, 8>(fill, context);
    case DType::bfloat16: return run<__nv_bfloat16, 8>(fill, context);
  }
}

}  // namespace vae_fast::device
