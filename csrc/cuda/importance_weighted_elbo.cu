#include <algorithm>

#include "common/math.h"
#include "cuda/reduce.cuh"

namespace vae_fast::device {
namespace {

struct Call {
  ImportanceArgs args;
  int width_bits;  // neighbouring rows that a block works on, as a logarithm
};

// What the threads of a block that share a row have, made one value by f in a fixed order.
template <class F>
__device__ __forceinline__ double over_row(double mine, int width_bits, F&& f) {
  const int width = 1 << width_bits, lane = threadIdx.x & (width - 1);
  shared_sums[threadIdx.x] = mine;
  __syncthreads();
  double all = shared_sums[lane];
  for (int at = lane + width; at < kThreads; at += width) all = f(all, shared_sums[at]);
  __syncthreads();  // the next values are written there again
  return all;
}

// Three looks at the log-weights, the later ones at what the caches hold: they are one element for
// every sample, where the tensors that they were made from have a whole event.
template <class T>
__global__ void __launch_bounds__(kThreads) importance_kernel(const __grid_constant__ Call call) {
  const ImportanceArgs& args = call.args;
  const View& in = args.log_weights;
  const int width = 1 << call.width_bits;
  const int64_t first = threadIdx.x >> call.width_bits, step = kThreads >> call.width_bits;
  const int64_t rows = args.shape.rows;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * width;
  for (int64_t base = static_cast<int64_t>(blockIdx.x) * width; base < rows; base += stride) {
    const int64_t row = base + (threadIdx.x & (width - 1));
    const int64_t samples = row < rows ? args.shape.samples : 0;
    const auto log_weight = [&](int64_t k) {
      return load_any<T>(in.data, in.dtype, k * in.sample_stride + row * in.row_stride);
    };
    double largest = -INFINITY;
    for (int64_t k = first; k < samples; k += step) {
      const auto w = static_cast<double>(log_weight(k));
      largest = w > largest ? w : largest;
    }
    largest = over_row(largest, call.width_bits, [](double a, double b) { return a > b ? a : b; });
    // An infinite one is no scale: all of them 0, or one that is infinite itself.
    const T shift = fabs(largest) < INFINITY ? static_cast<T>(largest) : T(0);
    double sum = 0;
    for (int64_t k = first; k < samples; k += step)
      sum += static_cast<double>(math::exp(log_weight(k) - shift));
    sum = over_row(sum, call.width_bits, [](double a, double b) { return a + b; });
    // Where the sum is infinite its difference to itself is NaN, as the weights are to be.
    const auto scale = static_cast<T>(sum == 0 ? 0.0 : sum < INFINITY ? 1.0 / sum : sum - sum);
    for (int64_t k = first; k < samples; k += step) {
      const T weight = scale * math::exp(log_weight(k) - shift);
      store_any(weight, args.weights.data, args.weights.dtype, k * rows + row);
    }
    if (first == 0 && samples > 0) {
      const double bound = static_cast<double>(shift) + log(sum / static_cast<double>(samples));
      store_any(bound, args.bound.data, args.bound.dtype, row);
    }
  }
}

}  // namespace

void importance_weighted_elbo_forward(const ImportanceArgs& args, const Context& context) {
  const DeviceGuard guard(context.device);
  Call call{args, 0};
  while (call.width_bits < 5 && int64_t{1} << call.width_bits < args.shape.rows) ++call.width_bits;
  const int64_t tiles = (args.shape.rows + (1 << call.width_bits) - 1) >> call.width_bits;
  const dim3 grid(static_cast<unsigned>(std::min(tiles, enough_blocks(context.device))));
  const auto kernel =
      args.bound.dtype == DType::float64 ? importance_kernel<double> : importance_kernel<float>;
  launch("importance_weighted_elbo_forward", kernel, grid, sizeof(double) * kThreads, context,
         call);
}

}  // namespace vae_fast::device
