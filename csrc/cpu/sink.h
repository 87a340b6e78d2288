// Where a kernel's values at the elements go: to memory, or into a sum over rows, columns or both.
#pragma once

#include <new>

#include "cpu/tile.h"

namespace vae_fast::VF_ISA {

inline void set(const Output& output, int64_t index, double value) {
  with_element(output.dtype, output.data, [&](auto* p) { from_compute(value, p + index); });
}

template <class T>
class Sink {
 public:
  // own_sums: the caller reads the rows' sums by row_sum and writes the output itself.
  Sink(const Output& output, const Tiling& tiling, bool own_sums = false)
      : output_(output), tiling_(tiling) {
    if (!wanted()) return;
    if (output.reduction == Reduction::full) {
      streams_ = tiling.streams();
      return;
    }
    const Shape shape = tiling.shape();
    in_output_ = !own_sums && output.reduction == Reduction::row && output.dtype == kDTypeOf<T> &&
                 tiling.tiles_per_row() == 1 && shape.cols > 0;
    if (in_output_) {
      sums_ = static_cast<T*>(output.data);
      return;
    }
    if (output.reduction == Reduction::column) {
      column_sums_ = allocate<double>(tiling.row_groups() * shape.cols);
    } else {
      sums_ = allocate<T>(shape.rows * tiling.tiles_per_row());
    }
  }
  ~Sink() {
    if (!in_output_) std::free(sums_);
    std::free(column_sums_);
  }
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;

  bool wanted() const { return output_.data != nullptr; }
  bool by_column() const { return wanted() && output_.reduction == Reduction::column; }

  // Where the kernel writes the tile's values: the output itself, if it has an element of S for
  // each and the tile's are next to one another, or buffer; nowhere, if they are not wanted.
  template <class S = T>
  Target<S> target(const Tile& tile, S* buffer) const {
    if (!wanted()) return {};
    if (!in_place<S>(tile)) return {buffer};
    return target_at(static_cast<S*>(output_.data) + place(tile, output_), streams_);
  }

  // Takes the values that the kernel has written to target(tile), which begin there.
  void take(const Tile& tile, int64_t group, const T* values) {
    switch (output_.reduction) {
      case Reduction::full:
        if (!in_place<T>(tile)) write_tile(values, output_, tile, streams_);
        return;
      case Reduction::column: {
        const int64_t cols = tiling_.shape().cols;
        double* columns = column_sums_ + group * cols + tile.start % cols;
        const int run = tile.rows == 1 ? tile.count : static_cast<int>(cols);
        for (int row = 0; row < tile.rows; ++row)
          for (int i = 0; i < run; ++i) columns[i] += values[row * cols + i];
        return;
      }
      default: {  // row and total: one sum a row, or a part of one
        const int run = tile.count / tile.rows;
        T* sums = sums_ + (tiling_.tiles_per_row() == 1 ? tile.row : tile.index);
        for (int row = 0; row < tile.rows; ++row) sums[row] = sum(values + row * run, run);
      }
    }
  }

  // After the last tile: the sum of a row, of its parts in order.
  double row_sum(int64_t row) const {
    const int64_t parts = tiling_.tiles_per_row();
    double value = 0;
    for (int64_t part = 0; part < parts; ++part) value += sums_[row * parts + part];
    return value;
  }

  // Ends the sums and writes them, after the last tile.
  void finish() const {
    if (!wanted() || output_.reduction == Reduction::full || in_output_) return;
    with_element(output_.dtype, output_.data, [&](auto* p) {
      const Shape shape = tiling_.shape();
      if (output_.reduction == Reduction::column) {
        for (int64_t i = 0; i < shape.cols; ++i) from_compute(column_sum(i), p + i);
        return;
      }
      double total = 0;
      for (int64_t row = 0; row < shape.rows; ++row) {
        const double value = row_sum(row);
        if (output_.reduction == Reduction::row) from_compute(value, p + row);
        total += value;
      }
      if (output_.reduction == Reduction::total) from_compute(total, p);
    });
  }

 private:
  template <class S>
  bool in_place(const Tile& tile) const {
    return output_.reduction == Reduction::full && output_.dtype == kDTypeOf<S> &&
           (output_.row_gap == 0 || tile.rows == 1);
  }

  template <class S>
  static S* allocate(int64_t count) {
    auto* memory = static_cast<S*>(std::calloc(count ? count : 1, sizeof(S)));
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
  }

  double column_sum(int64_t column) const {
    double value = 0;
    for (int64_t group = 0; group < tiling_.row_groups(); ++group)
      value += column_sums_[group * tiling_.shape().cols + column];
    return value;
  }

  Output output_;
  const Tiling& tiling_;
  T* sums_ = nullptr;  // of a row, or of a part of one
  // Of a column in a group of rows: in double, since one goes over any number of rows in turn.
  double* column_sums_ = nullptr;
  bool streams_ = false;    // whether the output is written past the caches
  bool in_output_ = false;  // whether the output itself holds sums_
};

}  // namespace vae_fast::VF_ISA
