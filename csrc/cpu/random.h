// The noise of a run of elements.
#pragma once

#include "common/normal.h"
#include "cpu/kernels.h"
#include "cpu/tile.h"

namespace vae_fast::VF_ISA {

// Room for a tile's noise: it is made in whole blocks of four, a vector of them at a time.
template <class T>
struct NoiseBuffer {
  alignas(64) T data[kTile + 4 + 4 * kWidth];
};

// Writes the blocks from first_block on until count elements are there; may write further, to the
// end of a vector of blocks.
//
// Two loops, the words of each vector of blocks kept where its normals will be: the processor works
// ahead over the iterations of a short loop only. 5 % less time than in one on AVX-512, 6 % on AVX2
// (AMD Zen 5).
inline void fill_blocks(uint64_t seed, uint32_t sample, uint64_t first_block, int count, float* p) {
  constexpr int width = 4 * kWidth;
  const U32 lanes = block_of_lane();
  for (int done = 0; done < count; done += width) {
    const uint64_t block = first_block + done / 4;
    const uint32_t low = static_cast<uint32_t>(block), high = static_cast<uint32_t>(block >> 32);
    U32 words[4] = {U32(low) + lanes, U32(high), U32(sample), U32(0u)};
    if (low > 0xFFFFFFFFu - kWidth)  // the low word wraps within this vector
      words[1] = words[1] + one_below(words[0], U32(low));
    WideU32 wide[4] = {WideU32(words[0]), WideU32(words[1]), WideU32(words[2]), WideU32(words[3])};
    philox4x32_10(wide, seed);
    for (int word = 0; word < 4; ++word)
      store(p + done + word * kWidth, from_bits(wide[word].words()));
  }
  for (int done = 0; done < count; done += width) {
    U32 words[4];
    for (int word = 0; word < 4; ++word) words[word] = bits(load(p + done + word * kWidth));
    F32 normals[4];
    box_muller(words[0], words[1], normals[0], normals[1]);
    box_muller(words[2], words[3], normals[2], normals[3]);
    store_blocks(p + done, normals);
  }
}

inline void fill_blocks(uint64_t seed, uint32_t sample, uint64_t first_block, int count,
                        double* p) {
  for (int done = 0; done < count; done += 4) {
    const uint64_t block = first_block + done / 4;
    uint32_t words[4] = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), sample,
                         0u};
    philox4x32_10(words, seed);
    box_muller(words[0], words[1], p[done], p[done + 1]);
    box_muller(words[2], words[3], p[done + 2], p[done + 3]);
  }
}

// The noise of the tile's elements, in buffer.
template <class T>
inline const T* make_noise(const Noise& noise, Shape shape, int64_t sample, const Tile& tile,
                           NoiseBuffer<T>& buffer) {
  const uint64_t element = noise.row_offset * static_cast<uint64_t>(shape.cols) + tile.start;
  const int skip = static_cast<int>(element % 4);
  fill_blocks(noise.seed, noise.sample_offset + static_cast<uint32_t>(sample), element / 4,
              skip + tile.count, buffer.data);
  return buffer.data + skip;
}

// The noise of one sample of a tile: as given, or made in buffer.
template <class T, class Args>
inline const T* noise_of(const Args& args, int64_t sample, const Tile& tile,
                         NoiseBuffer<T>& buffer) {
  if (args.eps.data == nullptr) return make_noise(args.noise, args.shape, sample, tile, buffer);
  const int64_t start = sample * args.shape.rows * args.shape.cols + tile.start;
  return read(args.eps, start, tile.count, buffer.data);
}

}  // namespace vae_fast::VF_ISA
