// The shares of a launch, and the one tiny launch after it that ends sums which many blocks make.
//
// A second launch rather than the last block of the first: that one would need a counter which is 0
// at the start, so a launch anyway, and a captured graph could find it otherwise.
#pragma once

#include <algorithm>
#include <utility>

#include "cuda/walk.cuh"

namespace vae_fast::device {

// to[j] = scale * the sum over a and b of from[a * outer_stride + b * inner_stride + j * stride],
// for each j < count; and from it, where asked for, loss[j] = beta kl[j] - to[j].
struct Job {
  const double* from;
  int64_t count, stride;
  int64_t inner, inner_stride;
  int64_t outer, outer_stride;
  double scale;
  Output to;
  Output loss;
  View kl;
  Scalar beta;
};

struct Jobs {
  static constexpr int kMost = 4;
  int count = 0;
  Job all[kMost];
};

void finish(const char* name, const Jobs& jobs, const Context& context);

class Plan {
 public:
  // whole: whether every row is of whole packs, which begin where it does.
  Plan(const char* name, const Problem& shape, int pack, bool whole, bool columns,
       const Context& context)
      : name_(name), context_(context), columns_(columns) {
    const int64_t rows = shape.samples * shape.rows;
    const int64_t enough = enough_blocks(context.device);
    // Two elements short of a pack may be at each end of a row.
    const int64_t packs =
        whole || columns ? (shape.cols + pack - 1) / pack : (shape.cols + 2 * pack - 2) / pack;
    int lanes = 1;
    while (lanes < packs && lanes < 32) lanes *= 2;
    int64_t parts = 1;
    if (columns) {
      parts = (packs + lanes - 1) / lanes;
      const int64_t per_block = kThreads / lanes;
      const int64_t groups = std::min(enough / parts, (rows + 4 * per_block - 1) / (4 * per_block));
      walk_ = {shape, lanes, logarithm(lanes), parts, 1, std::max<int64_t>(groups, 1)};
      blocks_ = parts * walk_.groups;
      return;
    }
    const int64_t resident = static_cast<int64_t>(multiprocessors(context.device)) * kThreads;
    // Where a block's threads would not have two packs of a row each, a warp for every row is
    // better as soon as there are warps enough for the device.
    const bool few = packs < 2 * kThreads ? rows * 32 < resident : rows < enough;
    // A block for a row where there are few, or where a warp's threads would each add up too many
    // elements one after another; several blocks for the same reasons.
    if (packs > kSerial * 32 || (packs > 64 && few)) {
      lanes = kThreads;
      const int64_t wanted = (enough / 4 + rows - 1) / rows, most = (packs + 511) / 512;
      parts = std::max(std::min(wanted, most), (packs + kSerial * lanes - 1) / (kSerial * lanes));
    } else {
      // To begin and end a row costs about as much as half a pack. So a thread has several packs of
      // it where the rows keep a multiprocessor busy all the same: four, or two where fewer threads
      // would no longer read 32 elements side by side.
      while (lanes > 1 && packs < (lanes * pack > 32 ? 4 : 2) * lanes &&
             rows * lanes >= 2 * resident)
        lanes /= 2;
    }
    walk_ = {shape, lanes, logarithm(lanes), parts, (packs + parts - 1) / parts, 1};
    const int64_t per_block = kThreads / lanes;
    blocks_ = std::min((rows * parts + per_block - 1) / per_block, enough);
  }

  const Walk& walk() const { return walk_; }
  bool columns() const { return columns_; }

  // Where the kernel puts a sum that ends in `output`.
  Sum sum(const Output& output) {
    if (output.data == nullptr || output.reduction == Reduction::full) return {};
    const int64_t rows = walk_.shape.samples * walk_.shape.rows, cols = walk_.shape.cols;
    switch (output.reduction) {
      case Reduction::row: return row_sums(output, rows);
      case Reduction::column:
        return later(output, {nullptr, cols, 1, walk_.groups, cols, 1, 0, 1.0, {}, {}, {}, {}},
                     walk_.groups * cols);
      default: return total(output, 1.0);
    }
  }

  // Sums of `rows` rows, by row and then by its part.
  Sum row_sums(const Output& output, int64_t rows) {
    if (walk_.parts == 1) return {output.data, output.dtype, Reduction::row};
    return later(output, {nullptr, rows, walk_.parts, walk_.parts, 1, 1, 0, 1.0, {}, {}, {}, {}},
                 rows * walk_.parts);
  }

  // A sum over all elements, times scale.
  Sum total(Output output, double scale) {
    output.reduction = Reduction::total;
    return later(output, {nullptr, 1, 0, blocks_, 1, 1, 0, scale, {}, {}, {}, {}}, blocks_);
  }

  // Makes room for `size` sums that `job` starts from.
  Sum later(const Output& output, Job job, int64_t size) {
    auto* room = context_.scratch<double>(size);
    job.from = room;
    job.to = output;
    jobs_.all[jobs_.count++] = job;
    return {room, DType::float64, output.reduction};
  }

  // own: bytes of shared memory that the kernel has for itself, behind that for sums.
  template <class Args>
  void run(void (*kernel)(Args), const Args& args, int pack, size_t own = 0) const {
    const size_t shared = sizeof(double) * (columns_ ? kThreads * pack : kWarps);
    launch(name_, kernel, dim3(static_cast<unsigned>(blocks_)), shared + own, context_, args);
    if (jobs_.count > 0) finish(name_, jobs_, context_);
  }

 private:
  static constexpr int64_t kSerial = 64;  // packs that one thread adds up in a row

  static int logarithm(int power_of_two) {
    int bits = 0;
    while (power_of_two >> bits > 1) ++bits;
    return bits;
  }

  const char* name_;
  const Context& context_;
  bool columns_;
  Walk walk_;
  int64_t blocks_;
  Jobs jobs_;
};

}  // namespace vae_fast::device
