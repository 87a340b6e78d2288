#include <string>

#include "cuda/plan.h"
#include "cuda/scalar.cuh"

namespace vae_fast::device {
namespace {

__device__ __forceinline__ void write(const Job& job, int64_t j, double sum) {
  const double value = job.scale * sum;
  if (job.to.data != nullptr) store_any(value, job.to.data, job.to.dtype, j);
  if (job.loss.data == nullptr) return;
  const double kl = load_any<double>(job.kl.data, job.kl.dtype, j * job.kl.row_stride);
  store_any(value_of(job.beta) * kl - value, job.loss.data, job.loss.dtype, j);
}

// Every lanes-th term from the lane's own on, in order.
__device__ __forceinline__ double part(const Job& job, int64_t j, int lane, int lanes) {
  double sum = 0;
  for (int64_t a = 0; a < job.outer; ++a) {
    const double* from = job.from + a * job.outer_stride + j * job.stride;
    for (int64_t b = lane; b < job.inner; b += lanes) sum += from[b * job.inner_stride];
  }
  return sum;
}

// A thread for each of many results, or a block for each of few.
__global__ void __launch_bounds__(kThreads, 1) finish_kernel(const __grid_constant__ Jobs jobs) {
  const Job& job = jobs.all[blockIdx.y];
  const int64_t block = blockIdx.x, blocks = gridDim.x;
  if (job.count >= kThreads) {
    for (int64_t j = block * kThreads + threadIdx.x; j < job.count; j += blocks * kThreads)
      write(job, j, part(job, j, 0, 1));
    return;
  }
  for (int64_t j = block; j < job.count; j += blocks) {
    const double sum = group_sum(part(job, j, threadIdx.x, kThreads), kThreads);
    if (threadIdx.x == 0) write(job, j, sum);
  }
}

}  // namespace

void finish(const char* name, const Jobs& jobs, const Context& context) {
  int64_t blocks = 1;
  for (int i = 0; i < jobs.count; ++i) {
    const int64_t count = jobs.all[i].count;
    blocks = std::max(blocks, count >= kThreads ? (count + kThreads - 1) / kThreads : count);
  }
  blocks = std::min(blocks, enough_blocks(context.device));
  launch((std::string(name) + " (end of its sums)").c_str(), finish_kernel,
         dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(jobs.count)),
         sizeof(double) * kWarps, context, jobs);
}

}  // namespace vae_fast::device
