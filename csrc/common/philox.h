// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
#pragma once

#include "common/config.h"

namespace vae_fast::VF_ISA {

VF_FN void multiply_high_low(uint32_t a, uint32_t b, uint32_t& high, uint32_t& low) {
#if defined(__CUDA_ARCH__)
  // By name: of a 64-bit product the compiler adds the upper half of a constant's, which is 0.
  asm("{ .reg .b64 product; mul.wide.u32 product, %2, %3; mov.b64 {%1, %0}, product; }"
      : "=r"(high), "=r"(low)
      : "r"(a), "r"(b));
#else
  const uint64_t product = static_cast<uint64_t>(a) * b;
  high = static_cast<uint32_t>(product >> 32);
  low = static_cast<uint32_t>(product);
#endif
}

// U: uint32_t, or a vector of them with its own multiply_high_low: a counter a lane.
template <class U>
VF_FN void philox4x32_10(U (&counter)[4], uint64_t seed) {
  uint32_t key0 = static_cast<uint32_t>(seed);
  uint32_t key1 = static_cast<uint32_t>(seed >> 32);
#if defined(__CUDACC__)
#pragma unroll
#else
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; ++round) {
    U high0, low0, high1, low1;
    multiply_high_low(0xD2511F53u, counter[0], high0, low0);
    multiply_high_low(0xCD9E8D57u, counter[2], high1, low1);
    counter[0] = high1 ^ counter[1] ^ key0;
    counter[1] = low1;
    counter[2] = high0 ^ counter[3] ^ key1;
    counter[3] = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

}  // namespace vae_fast::VF_ISA
