// The noise of a pack of elements.
#pragma once

#include "common/normal.h"
#include "common/philox.h"
#include "cuda/kernels.h"

namespace vae_fast::device {

// One Philox block: the normals of elements 4 * block and on. Block numbers have 62 bits; those
// below element 0, of a pack that begins before its row, are made and not used.
template <class T>
__device__ __forceinline__ void block_of_normals(uint64_t seed, uint64_t block, uint32_t sample,
                                                 T (&normals)[4]) {
  uint32_t words[4] = {static_cast<uint32_t>(block),
                       static_cast<uint32_t>(block >> 32) & 0x3FFFFFFFu, sample, 0u};
  philox4x32_10(words, seed);
  box_muller(words[0], words[1], normals[0], normals[1]);
  box_muller(words[2], words[3], normals[2], normals[3]);
}

// The normals of P / 4 Philox blocks, from number `block` on.
template <class T, int P>
__device__ __forceinline__ void whole_blocks(uint64_t seed, uint64_t block, uint32_t sample,
                                             T (&eps)[P]) {
  static_assert(P % 4 == 0, "a pack holds whole blocks");
#pragma unroll
  for (int b = 0; b < P / 4; ++b) {
    T normals[4];
    block_of_normals(seed, block + b, sample, normals);
#pragma unroll
    for (int i = 0; i < 4; ++i) eps[4 * b + i] = normals[i];
  }
}

// The normals of elements [element, element + P). All indices into arrays are constants once
// unrolled, so nothing of this goes to local memory.
template <class T, int P>
__device__ __forceinline__ void make_noise(uint64_t seed, uint64_t element, uint32_t sample,
                                           T (&eps)[P]) {
  const uint64_t first = element >> 2;
  const int skip = static_cast<int>(element & 3);
  whole_blocks(seed, first, sample, eps);
  if (skip == 0) return;
  // The pack ends in one block more, and begins inside the first.
  T made[P + 4], last[4];
  block_of_normals(seed, first + P / 4, sample, last);
#pragma unroll
  for (int i = 0; i < P + 4; ++i) made[i] = i < P ? eps[i] : last[i - P];
#pragma unroll
  for (int i = 0; i < P + 3; ++i) made[i] = skip & 1 ? made[i + 1] : made[i];
#pragma unroll
  for (int i = 0; i < P + 2; ++i) made[i] = skip & 2 ? made[i + 2] : made[i];
#pragma unroll
  for (int i = 0; i < P; ++i) eps[i] = made[i];
}

// The index that an element's noise is a function of.
__device__ __forceinline__ uint64_t element_at(const Noise& noise, int64_t cols, int64_t row,
                                               int64_t column) {
  return (noise.row_offset + static_cast<uint64_t>(row)) * static_cast<uint64_t>(cols) +
         static_cast<uint64_t>(column);
}

// The seed of a call: the caller's number, or one that lies on the device.
__device__ __forceinline__ uint64_t seed_of(const Noise& noise) {
  return noise.seed_at == nullptr ? noise.seed : static_cast<uint64_t>(*noise.seed_at);
}

}  // namespace vae_fast::device
