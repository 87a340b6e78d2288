// Runs the threads of a CUDA block on the CPU, each as a fiber of its own.
//
// A thread runs until it waits for the others of its block or warp, or ends; then another one does,
// in an order shuffled anew each time. So a missing barrier shows as a wrong or a changing result.
// A barrier that not all threads come to is reported, and shared memory is garbage when a block
// starts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_host {

constexpr int kMultiprocessors = 2;  // few, so that blocks have more than one turn
constexpr unsigned kMostThreads = 1024;
constexpr size_t kMostShared = 48 * 1024;

struct Config {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  void* stream = nullptr;
};

struct Options {
  uint64_t order = 1;  // seed of the order in which blocks and threads run
  bool runs = true;    // whether launches run anything
  double error = 0;    // of the approximate instructions, in units of their bounds: -1 to 1
};
Options& options();

bool can_launch(const Config& config);
// Throws std::runtime_error where threads wait for each other for ever.
void run(const Config& config, const std::function<void()>& thread);

// For threads: what they wait in is told apart by the line that they wait at.
void wait_for_block(int line);
uint64_t exchange(unsigned mask, uint64_t value, int lane_mask, int line);

}  // namespace cuda_host
