// How the elements are shared out among threads, and the sums that go with it.
//
// By rows: a group of threads works on one row, or on one part of it where rows are few and long;
// short rows share a warp. By columns, for sums over rows: a thread keeps its columns and goes down
// the rows. Which blocks and threads add what, and in which order, follows from the shape, the
// dtypes and the device alone.
//
// A kernel's body has enter(place), which turns to a row and says how many elements before its
// start packs are to begin so that they lie at aligned addresses; and operator()(span, values),
// which works on one pack and leaves the values that are summed, 0 where there is no element. Where
// it is kAhead, send(span) asks memory for a pack, and take() has what was sent for last stand
// ready: the next pack is on its way while one is worked on.
#pragma once

#include "cuda/operand.cuh"
#include "cuda/reduce.cuh"

namespace vae_fast::device {

struct Walk {
  Problem shape;
  int lanes;       // threads of a group: a power of two up to 32, or kThreads
  int lane_bits;   // its logarithm: a division in every thread would cost as much as a short row
  int64_t parts;   // of a row
  int64_t packs;   // of a part, at most
  int64_t groups;  // of rows, by columns
};

// a / b, for a of at least 0: in 32 bits where that will do, which costs a fraction.
__device__ __forceinline__ int64_t quotient(int64_t a, int64_t b) {
  if ((a | b) >> 32) return a / b;
  return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
}

__device__ __forceinline__ Place place_in(const Problem& shape, int64_t row) {
  if (shape.samples == 1) return {0, row};
  const int64_t sample = quotient(row, shape.rows);
  return {sample, row - sample * shape.rows};
}

// By rows: enter(place) and send(span) as above, of which the first pack is sent for here;
// visit(span, next, more) for each pack, with the one after it where there is more; and
// leave(unit, there), to which the whole block comes: a unit is a row or a part of one, and the
// last ones may not be there.
// kPlain: rows are of whole packs, that begin where the row does.
template <int P, bool kPlain, class Enter, class Send, class Visit, class Leave>
__device__ __forceinline__ void walk_rows(const Walk& walk, Enter&& enter, Send&& send,
                                          Visit&& visit, Leave&& leave) {
  const int lane = threadIdx.x & (walk.lanes - 1), group = threadIdx.x >> walk.lane_bits;
  const int per_block = kThreads >> walk.lane_bits;
  const int64_t units = walk.shape.samples * walk.shape.rows * walk.parts;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * per_block;
  // The whole block goes round together: sums are everybody's work.
  for (int64_t base = static_cast<int64_t>(blockIdx.x) * per_block; base < units; base += stride) {
    const int64_t unit = base + group;
    if (unit < units) {
      const int64_t row = walk.parts > 1 ? quotient(unit, walk.parts) : unit;
      int head = enter(place_in(walk.shape, row));
      if (kPlain) head = 0;
      const int64_t all = (walk.shape.cols + head + P - 1) / P;
      const int64_t begin = (unit - row * walk.parts) * walk.packs;
      const int64_t end = begin + walk.packs < all ? begin + walk.packs : all;
      int64_t k = begin + lane;
      Span span = span_at<P, kPlain>(k * P - head, walk.shape.cols);
      if (k < end) send(span);
      while (k < end) {
        k += walk.lanes;
        const Span next = span_at<P, kPlain>(k * P - head, walk.shape.cols);
        visit(span, next, k < end);
        span = next;
      }
    }
    leave(unit, unit < units);
  }
}

template <class T, int P, int kSums, class Body>
class Walker {
 public:
  __device__ __forceinline__ Walker(const Walk& walk, const Sum (&sums)[kSums], Body& body)
      : walk_(walk),
        sums_(sums),
        body_(body),
        lane_(threadIdx.x & (walk.lanes - 1)),
        group_(threadIdx.x >> walk.lane_bits),
        per_block_(kThreads >> walk.lane_bits) {}

  __device__ __forceinline__ void by_rows() {
    T sum[kSums] = {};
    walk_rows<P, Body::kPlain>(
        walk_, [&](Place at) { return body_.enter(at); },
        [&](const Span& span) {
          if constexpr (Body::kAhead) body_.send(span);
        },
        [&](const Span& span, const Span& next, bool more) {
          if constexpr (Body::kAhead) {
            body_.take();
            if (more) body_.send(next);
          }
          visit(span, sum, nullptr);
        },
        [&](int64_t unit, bool there) {
          take(sum, unit, there);
#pragma unroll
          for (int j = 0; j < kSums; ++j) sum[j] = T(0);
        });
    finish_totals();
  }

  __device__ __forceinline__ void by_columns() {
    const int64_t rows = walk_.shape.samples * walk_.shape.rows;
    const int64_t group = quotient(blockIdx.x, walk_.parts);
    const int64_t tile = blockIdx.x - group * walk_.parts;
    const int64_t end = rows * (group + 1) / walk_.groups;
    const int64_t start = (tile * walk_.lanes + lane_) * P;
    double column[kSums][P] = {};
    for (int64_t base = rows * group / walk_.groups; base < end; base += per_block_) {
      const int64_t row = base + group_;
      T sum[kSums] = {};
      if (row < end && start < walk_.shape.cols) {
        body_.enter(place_in(walk_.shape, row));
        visit(span_at<P>(start, walk_.shape.cols), sum, column);
      }
      take(sum, row * walk_.parts + tile, row < end);
    }
    finish_totals();
#pragma unroll
    for (int j = 0; j < kSums; ++j)
      if (sums_[j].is(Reduction::column)) finish_columns(sums_[j], column[j], group, start);
  }

 private:
  __device__ __forceinline__ void visit(const Span& span, T (&sum)[kSums], double (*column)[P]) {
    T values[kSums][P];
    body_(span, values);
#pragma unroll
    for (int j = 0; j < kSums; ++j) {
      sum[j] += pack_sum(values[j]);
      if (column == nullptr) continue;
#pragma unroll
      for (int i = 0; i < P; ++i) column[j][i] += static_cast<double>(values[j][i]);
    }
  }

  // The sums of one unit: to memory where they are a row's, and on where they are a part of all.
  __device__ __forceinline__ void take(const T (&sum)[kSums], int64_t unit, bool there) {
#pragma unroll
    for (int j = 0; j < kSums; ++j) {
      if (sums_[j].is(Reduction::row)) {
        const T row = group_sum(sum[j], walk_.lanes);
        if (there && lane_ == 0) sums_[j].put(unit, static_cast<double>(row));
      }
      totals_[j] += static_cast<double>(sum[j]);
    }
  }

  __device__ __forceinline__ void finish_totals() const {
#pragma unroll
    for (int j = 0; j < kSums; ++j) {
      if (!sums_[j].is(Reduction::total)) continue;
      const double total = group_sum(totals_[j], kThreads);
      if (threadIdx.x == 0) sums_[j].put(blockIdx.x, total);
    }
  }

  // Adds up what the block's groups have for the same columns.
  __device__ __forceinline__ void finish_columns(const Sum& sum, const double (&mine)[P],
                                                 int64_t group, int64_t start) const {
#pragma unroll
    for (int i = 0; i < P; ++i) shared_sums[threadIdx.x * P + i] = mine[i];
    __syncthreads();
    for (int i = 0; i < P && group_ == 0; ++i) {
      if (start + i >= walk_.shape.cols) break;
      double total = 0;
      for (int g = 0; g < per_block_; ++g) total += shared_sums[(g * walk_.lanes + lane_) * P + i];
      sum.put(group * walk_.shape.cols + start + i, total);
    }
    __syncthreads();
  }

  const Walk& walk_;
  const Sum (&sums_)[kSums];
  Body& body_;
  int lane_, group_, per_block_;
  double totals_[kSums] = {};
};

}  // namespace vae_fast::device
