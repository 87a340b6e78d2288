#include <algorithm>

#include "common/gaussian.h"
#include "cuda/choose.h"
#include "cuda/launch.cuh"
#include "cuda/scalar.cuh"

namespace vae_fast::device {
namespace {

// T: what is computed in.
template <class S, int P, class T>
__device__ __forceinline__ void multiply(S* p, int64_t count, T factor) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads * P;
  for (int64_t start = thread * P; start < count; start += stride) {
    const bool whole = start + P <= count && Pack<S, P>::aligned(p + start);
    const int high = static_cast<int>(count - start < P ? count - start : P);
    Pack<S, P> pack;
    whole ? pack.load(p + start) : pack.load(p + start, 0, high);
#pragma unroll
    for (int i = 0; i < P; ++i)
      narrow(factor * unless_zero(factor, widen<T>(pack.at[i])), pack.at[i]);
    whole ? pack.store(p + start) : pack.store(p + start, 0, high);
  }
}

// Of any dtype but float64.
template <class T>
__device__ __forceinline__ void multiply_narrow(const Output& out, int64_t count, T factor) {
  switch (out.dtype) {
    case DType::float32: return multiply<float, 4>(static_cast<float*>(out.data), count, factor);
    case DType::float16: return multiply<__half, 8>(static_cast<__half*>(out.data), count, factor);
    default:
      return multiply<__nv_bfloat16, 8>(static_cast<__nv_bfloat16*>(out.data), count, factor);
  }
}

__global__ void __launch_bounds__(kThreads) scale_kernel(const __grid_constant__ ScaleArgs args) {
  const double factor = value_of(args.factor);
  if (factor == 1.0) return;  // the usual case: nothing is read but the factor
  const Output& out = args.gradients[blockIdx.y];
  const int64_t count = args.elements[blockIdx.y];
  const auto single = static_cast<float>(factor);
  if (out.dtype == DType::float64)
    return multiply<double, 4>(static_cast<double*>(out.data), count, factor);
  // A factor that is no float is not rounded first.
  if (static_cast<double>(single) == factor) return multiply_narrow(out, count, single);
  multiply_narrow(out, count, factor);
}

}  // namespace

void scale(const ScaleArgs& args, const Context& context) {
  const DeviceGuard guard(context.device);
  const int64_t most = *std::max_element(args.elements, args.elements + args.count);
  const int64_t blocks = (most / 4 + kThreads) / kThreads;  // of packs of four, the smallest
  launch("scale", scale_kernel,
         dim3(static_cast<unsigned>(std::min(blocks, enough_blocks(context.device))),
              static_cast<unsigned>(args.count)),
         0, context, args);
}

}  // namespace vae_fast::device
