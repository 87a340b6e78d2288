// Inputs and outputs of a kernel, a row and then a pack of it at a time.
#pragma once

#include "cuda/element.cuh"
#include "cuda/kernels.h"

namespace vae_fast::device {

struct Place {
  int64_t sample, row;
};

// P columns from start on, of which [low, high) are there.
struct Span {
  int64_t start;
  int low, high;
  bool full;
};

// kPlain: every pack of a row is whole.
template <int P, bool kPlain = false>
__device__ __forceinline__ Span span_at(int64_t start, int64_t cols) {
  if (kPlain) return {start, 0, P, true};
  const int64_t left = cols - start;
  const int low = start < 0 ? static_cast<int>(-start) : 0;
  const int high = left < P ? static_cast<int>(left) : P;
  return {start, low, high, low == 0 && high == P};
}

// Makes what is to be summed 0 where there is no element.
template <class T, int P>
__device__ __forceinline__ void zero_outside(const Span& span, T (&values)[P]) {
  if (span.full) return;
#pragma unroll
  for (int i = 0; i < P; ++i)
    if (i < span.low || i >= span.high) values[i] = T(0);
}

// kAdjacent: elements of S, next to each other in a row; else whatever a View may say, of S or of
// the type computed in. Not given: zeros. kPlain: adjacent, given, and read in whole accesses.
template <class T, class S, int P, bool kAdjacent, bool kPlain = false>
class Input;

template <class T, class S, int P, bool kPlain>
class Input<T, S, P, true, kPlain> {
 public:
  __device__ __forceinline__ void enter(const View& view, Place at) {
    row_ = !kPlain && view.data == nullptr
               ? nullptr
               : static_cast<const S*>(view.data) +
                     (at.sample * view.sample_stride + at.row * view.row_stride);
  }
  __device__ __forceinline__ const S* row() const { return row_; }
  // Whether load(start) may be used.
  __device__ __forceinline__ bool whole(int64_t start) const {
    return kPlain || row_ == nullptr || Pack<S, P>::aligned(row_ + start);
  }
  __device__ __forceinline__ void load(int64_t start) {
    if (kPlain || row_ != nullptr)
      pack_.load(row_ + start);
    else
      pack_ = {};
  }
  __device__ __forceinline__ void load(const Span& span) {
    if (row_ != nullptr)
      pack_.load(row_ + span.start, span.low, span.high);
    else
      pack_ = {};
  }
  // The elements of a pack that was loaded there.
  __device__ __forceinline__ void take(const Input& other) { pack_ = other.pack_; }
  __device__ __forceinline__ T operator[](int i) const { return widen<T>(pack_.at[i]); }

 private:
  const S* row_;
  Pack<S, P> pack_;
};

template <class T, class S, int P>
class Input<T, S, P, false, false> {
 public:
  __device__ __forceinline__ void enter(const View& view, Place at) {
    data_ = view.data;
    dtype_ = view.dtype;
    offset_ = at.sample * view.sample_stride + at.row * view.row_stride;
    repeated_ = view.col_stride == 0;
  }
  __device__ __forceinline__ bool whole(int64_t start) const {
    if (data_ == nullptr || repeated_ || dtype_ != kDTypeOf<S>) return true;
    return Pack<S, P>::aligned(static_cast<const S*>(data_) + offset_ + start);
  }
  __device__ __forceinline__ void load(int64_t start) {
    if (data_ != nullptr && !repeated_ && dtype_ == kDTypeOf<S>) {
      Pack<S, P> pack;
      pack.load(static_cast<const S*>(data_) + offset_ + start);
#pragma unroll
      for (int i = 0; i < P; ++i) values_[i] = widen<T>(pack.at[i]);
    } else {
      load(Span{start, 0, P, true});
    }
  }
  __device__ __forceinline__ void load(const Span& span) {
    const T everywhere = data_ != nullptr && repeated_ ? one(0) : T(0);
#pragma unroll
    for (int i = 0; i < P; ++i) {
      values_[i] = everywhere;
      if (data_ != nullptr && !repeated_ && i >= span.low && i < span.high)
        values_[i] = one(span.start + i);
    }
  }
  __device__ __forceinline__ void take(const Input& other) {
#pragma unroll
    for (int i = 0; i < P; ++i) values_[i] = other.values_[i];
  }
  __device__ __forceinline__ T operator[](int i) const { return values_[i]; }

 private:
  __device__ __forceinline__ T one(int64_t column) const {
    return dtype_ == kDTypeOf<S> ? widen<T>(static_cast<const S*>(data_)[offset_ + column])
                                 : static_cast<const T*>(data_)[offset_ + column];
  }

  const void* data_;
  DType dtype_;
  int64_t offset_;
  bool repeated_;
  T values_[P];
};

// Loads the pack of each input: all of them in whole accesses, one behind the other so that they
// are on their way together, or all of them by the element.
template <class... Inputs>
__device__ __forceinline__ void fetch(const Span& span, Inputs&... inputs) {
  if (span.full && (inputs.whole(span.start) && ...)) {
    (inputs.load(span.start), ...);
  } else {
    (inputs.load(span), ...);
  }
}

template <class S, bool kPlain, class T, int P>
__device__ __forceinline__ void store_as(void* data, int64_t row_start, const Span& span,
                                         const T (&values)[P]) {
  S* p = static_cast<S*>(data) + row_start + span.start;
  Pack<S, P> pack;
#pragma unroll
  for (int i = 0; i < P; ++i) narrow(values[i], pack.at[i]);
  if (kPlain || (span.full && Pack<S, P>::aligned(p))) {
    pack.store(p);
  } else {
    pack.store(p, span.low, span.high);
  }
}

// A pack of an output whose row begins at element row_start; of S, or of T. kPlain: of whole packs
// that are written in whole accesses.
template <class S, bool kOnlyS, bool kPlain = false, class T, int P>
__device__ __forceinline__ void store(const Output& out, int64_t row_start, const Span& span,
                                      const T (&values)[P]) {
  if (kOnlyS || out.dtype == kDTypeOf<S>)
    return store_as<S, kPlain>(out.data, row_start, span, values);
  store_as<T, false>(out.data, row_start, span, values);
}

}  // namespace vae_fast::device
