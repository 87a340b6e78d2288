#include "common/math.h"
#include "cpu/isa.h"
#include "cpu/tile.h"

namespace vae_fast::VF_ISA {
namespace {

constexpr int64_t kBlockElements = 1 << 14;  // of log-weights, looked at three times: in a cache
constexpr int64_t kPart = 32;                // samples that are summed before they join the others

// count rows from start on: vectors of neighbouring rows, so that a row's result does not depend on
// the others.
template <class T>
void block(const ImportanceWeightedELBOArgs& args, int64_t start, int count) {
  const int64_t samples = args.samples, rows = args.rows;
  const T* log_weights = static_cast<const T*>(args.log_weights.data) + start;
  T* weights = static_cast<T*>(args.weights.data) + start;
  T* bound = static_cast<T*>(args.bound.data) + start;
  const Lanes<T> infinity(static_cast<T>(__builtin_inf())), zero(T(0));
  Buffer<T> shifts, sums, parts;

  for_each_vector<T>(count, [&](int i, int lanes) VF_INLINE {
    put(shifts.data + i, lanes, -infinity);
    put(sums.data + i, lanes, zero);
    put(parts.data + i, lanes, zero);
  });
  for (int64_t k = 0; k < samples; ++k) {
    for_each_vector<T>(count, [&](int i, int lanes) VF_INLINE {
      const Lanes<T> w = get(log_weights + k * rows + i, lanes);
      put(shifts.data + i, lanes, math::max(get(shifts.data + i, lanes), w));
    });
  }
  for_each_vector<T>(count, [&](int i, int lanes) VF_INLINE {
    // An infinite one is no scale: all are -infinity, or one is infinity itself.
    const Lanes<T> largest = get(shifts.data + i, lanes);
    const Lanes<T> above = math::select_below(-infinity, largest, largest, zero);
    put(shifts.data + i, lanes, math::select_below(largest, infinity, above, zero));
  });
  for (int64_t k = 0; k < samples; ++k) {
    for_each_vector<T>(count, [&](int i, int lanes) VF_INLINE {
      const Lanes<T> w = get(log_weights + k * rows + i, lanes);
      const Lanes<T> value = math::exp(w - get(shifts.data + i, lanes));
      put(weights + k * rows + i, lanes, value);
      const Lanes<T> part = get(parts.data + i, lanes) + value;
      const bool ends = k % kPart == kPart - 1 || k == samples - 1;
      put(parts.data + i, lanes, ends ? zero : part);
      if (ends) put(sums.data + i, lanes, get(sums.data + i, lanes) + part);
    });
  }
  for_each_vector<T>(count, [&](int i, int lanes) VF_INLINE {
    const Lanes<T> sum = get(sums.data + i, lanes);
    const Lanes<T> mean = sum / Lanes<T>(static_cast<T>(samples));
    put(bound + i, lanes, get(shifts.data + i, lanes) + math::log(mean));
    // The sum is 0, where every weight is, or near 1 and above. Infinite, it makes them all NaN.
    const Lanes<T> scale = math::select_below(sum, infinity, Lanes<T>(T(1)) / sum, sum - sum);
    put(sums.data + i, lanes, math::select_below(sum, Lanes<T>(T(0.5)), zero, scale));
  });
  for (int64_t k = 0; k < samples; ++k) {
    for_each_vector<T>(count, [&](int i, int lanes) VF_INLINE {
      T* at = weights + k * rows + i;
      put(at, lanes, get(at, lanes) * get(sums.data + i, lanes));
    });
  }
}

template <class T>
void forward(const ImportanceWeightedELBOArgs& args, int threads) {
  constexpr int64_t line = kCacheLine / static_cast<int64_t>(sizeof(T));
  int64_t each = kBlockElements / args.samples / line * line;
  each = each < line ? line : each > kTile ? kTile : each;
  const int64_t blocks = (args.rows + each - 1) / each;
  const int64_t useful = args.samples * args.rows / kElementsPerThread;
  if (threads > useful) threads = useful > 1 ? static_cast<int>(useful) : 1;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t left = args.rows - i * each;
    block<T>(args, i * each, static_cast<int>(left < each ? left : each));
  }
}

}  // namespace

void importance_weighted_elbo_forward(const ImportanceWeightedELBOArgs& args, int threads,
                                      bool wide) {
  wide ? forward<double>(args, threads) : forward<float>(args, threads);
}

}  // namespace vae_fast::VF_ISA
