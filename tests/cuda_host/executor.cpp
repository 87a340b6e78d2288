#include "executor.h"

#include <ucontext.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace vae_fast::device {
// The kernels' dynamic shared memory (csrc/cuda/reduce.cuh).
alignas(16) double shared_sums[cuda_host::kMostShared / sizeof(double)];
}  // namespace vae_fast::device

namespace cuda_host {
namespace {

constexpr size_t kStack = 64 * 1024;

enum class State { ready, at_block, at_warp, done };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  State state = State::done;
  int line = 0;       // where it waits
  unsigned mask = 0;  // of the lanes that it waits for
  int turn = 0;       // exchanges so far
  uint64_t slots[2];  // what it gives others: the next exchange must not write over this one's
};

struct Block {
  std::vector<Fiber> fibers;
  ucontext_t scheduler;
  unsigned current = 0, count = 0;
  const std::function<void()>* thread = nullptr;
  std::exception_ptr error;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_size = 0;
};
Block block;

// The two sides of a switch, which AddressSanitizer has to know of.
void leave(ucontext_t& from, ucontext_t& to, const void* stack, size_t size, bool for_good) {
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake, stack, size);
  swapcontext(&from, &to);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
  (void)stack, (void)size, (void)for_good;
  swapcontext(&from, &to);
#endif
}

void to_scheduler(bool for_good) {
  leave(block.fibers[block.current].context, block.scheduler, block.scheduler_stack,
        block.scheduler_stack_size, for_good);
}

void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &block.scheduler_stack, &block.scheduler_stack_size);
#endif
  try {
    (*block.thread)();
  } catch (...) {
    block.error = std::current_exception();
  }
  block.fibers[block.current].state = State::done;
  to_scheduler(true);
}

void start(Fiber& fiber) {
  getcontext(&fiber.context);
  fiber.context.uc_stack = {};
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
  fiber.state = State::ready;
  fiber.turn = 0;
}

void resume(unsigned index) {
  block.current = index;
  threadIdx = dim3(index, 0, 0);
  Fiber& fiber = block.fibers[index];
  leave(block.scheduler, fiber.context, fiber.stack.get(), kStack, false);
  if (block.error) std::rethrow_exception(block.error);
}

bool release(unsigned begin, unsigned end) {
  for (unsigned i = begin; i < end; ++i) block.fibers[i].state = State::ready;
  return true;
}

// Every thread at the same barrier of the block, or every lane of a warp in the same exchange.
bool release_block() {
  for (unsigned i = 0; i < block.count; ++i) {
    const Fiber& fiber = block.fibers[i];
    if (fiber.state != State::at_block || fiber.line != block.fibers[0].line) return false;
  }
  return release(0, block.count);
}

bool release_warp(unsigned begin) {
  const unsigned end = std::min(begin + 32, block.count);
  const Fiber& first = block.fibers[begin];
  for (unsigned i = begin; i < end; ++i) {
    const Fiber& fiber = block.fibers[i];
    if (fiber.state != State::at_warp || fiber.line != first.line || fiber.mask != 0xFFFFFFFFu)
      return false;
  }
  return release(begin, end);
}

[[noreturn]] void report_divergence() {
  std::string text = "threads of block " + std::to_string(blockIdx.x) + " wait for ever:";
  const char* names[] = {"ready", "at the block's barrier", "in a warp's exchange", "ended"};
  for (unsigned i = 0; i < block.count; ++i) {
    const Fiber& fiber = block.fibers[i];
    const Fiber* before = i == 0 ? nullptr : &block.fibers[i - 1];
    if (before != nullptr && before->state == fiber.state &&
        (before->line == fiber.line || fiber.state == State::done))
      continue;
    text += " from thread " + std::to_string(i) + " on " + names[static_cast<int>(fiber.state)];
    if (fiber.state != State::done) text += ", line " + std::to_string(fiber.line);
    text += ";";
  }
  throw std::runtime_error(text);
}

void run_block(std::mt19937_64& random) {
  std::vector<unsigned> ready(block.count);
  for (unsigned i = 0; i < block.count; ++i) start(block.fibers[i]);
  while (true) {
    ready.clear();
    bool all_done = true;
    for (unsigned i = 0; i < block.count; ++i) {
      if (block.fibers[i].state == State::ready) ready.push_back(i);
      all_done = all_done && block.fibers[i].state == State::done;
    }
    if (all_done) return;
    if (ready.empty()) {
      bool released = release_block();
      for (unsigned begin = 0; begin < block.count; begin += 32)
        released = release_warp(begin) || released;
      if (!released) report_divergence();
      continue;
    }
    std::shuffle(ready.begin(), ready.end(), random);
    for (const unsigned i : ready) resume(i);
  }
}

void poison_shared(size_t bytes) {
  auto* memory = reinterpret_cast<unsigned char*>(vae_fast::device::shared_sums);
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(memory, kMostShared);
#endif
  std::fill_n(memory, kMostShared, static_cast<unsigned char>(0xFF));  // NaN
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(memory + bytes, kMostShared - bytes);
#else
  (void)bytes;
#endif
}

}  // namespace

Options& options() {
  static Options current;
  return current;
}

bool can_launch(const Config& config) {
  const uint64_t threads = static_cast<uint64_t>(config.blockDim.x) * config.blockDim.y;
  return threads > 0 && threads <= kMostThreads && config.dynamicSmemBytes <= kMostShared &&
         config.gridDim.x > 0 && config.gridDim.x <= 0x7FFFFFFFu && config.gridDim.y > 0 &&
         config.gridDim.y <= 65535;
}

void run(const Config& config, const std::function<void()>& thread) {
  std::mt19937_64 random(options().order);
  blockDim = config.blockDim;
  gridDim = config.gridDim;
  block.count = config.blockDim.x;
  block.thread = &thread;
  block.error = nullptr;
  if (block.fibers.size() < block.count) block.fibers = std::vector<Fiber>(block.count);
  std::vector<uint64_t> blocks(static_cast<uint64_t>(gridDim.x) * gridDim.y);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::shuffle(blocks.begin(), blocks.end(), random);
  for (const uint64_t index : blocks) {
    blockIdx = dim3(index % gridDim.x, index / gridDim.x);
    poison_shared(config.dynamicSmemBytes);
    run_block(random);
  }
}

void wait_for_block(int line) {
  Fiber& fiber = block.fibers[block.current];
  fiber.state = State::at_block;
  fiber.line = line;
  to_scheduler(false);
}

uint64_t exchange(unsigned mask, uint64_t value, int lane_mask, int line) {
  Fiber& fiber = block.fibers[block.current];
  const int slot = fiber.turn++ % 2;
  fiber.slots[slot] = value;
  fiber.state = State::at_warp;
  fiber.line = line;
  fiber.mask = mask;
  to_scheduler(false);
  return block.fibers[block.current ^ lane_mask].slots[slot];
}

}  // namespace cuda_host
