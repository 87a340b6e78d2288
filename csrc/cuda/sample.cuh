// The forms of the kernels that know of samples, and a sample's noise at a pack.
#pragma once

#include "cuda/operand.cuh"
#include "cuda/random.cuh"

namespace vae_fast::device {

// What the forms of the kernels differ in.
template <class S_, int kPack_, bool kGeneral_, bool kAdjacent_, bool kPlain_ = false>
struct Form {
  using S = S_;
  using T = Compute<S>;
  static constexpr int kPack = kPack_;           // elements a thread works on at a time
  static constexpr bool kGeneral = kGeneral_;    // a prior other than N(0, 1)
  static constexpr bool kAdjacent = kAdjacent_;  // every input: of S, and adjacent in a row
  // What training does, of which nothing is asked at run time: one sample, of noise that is made;
  // all inputs and outputs there, in rows of whole packs at aligned addresses; no control of the
  // KL.
  static constexpr bool kPlain = kPlain_;
  static constexpr int kGradients = kGeneral ? 3 : 1;  // that may be sums
};

// The noise that args name, of eps or made: element, as the pack's row is looked at.
template <class F, class Args>
class SampleNoise {
 public:
  using T = typename F::T;
  static constexpr int P = F::kPack;

  // wanted: whether there are samples at all.
  __device__ __forceinline__ explicit SampleNoise(const Args& args, bool wanted = true)
      : args_(args), seed_(wanted ? seed_of(args.noise) : 0) {}

  // Beside it, `more` inputs of the sample are loaded, which have been entered.
  template <class... More>
  __device__ __forceinline__ void make(const Span& span, Place at, T (&eps)[P],
                                       More&... more) const {
    if (!F::kPlain && args_.eps.data != nullptr) {
      Input<T, typename F::S, P, F::kAdjacent> given;
      given.enter(args_.eps, at);
      fetch(span, given, more...);
#pragma unroll
      for (int i = 0; i < P; ++i) eps[i] = given[i];
      return;
    }
    if constexpr (sizeof...(More) > 0) fetch(span, more...);
    const uint64_t element = element_at(args_.noise, args_.shape.cols, at.row, span.start);
    const uint32_t sample = args_.noise.sample_offset + static_cast<uint32_t>(at.sample);
    if constexpr (F::kPlain) {
      whole_blocks(seed_, element >> 2, sample, eps);
    } else {
      make_noise(seed_, element, sample, eps);
    }
  }

 private:
  const Args& args_;
  uint64_t seed_;
};

}  // namespace vae_fast::device
