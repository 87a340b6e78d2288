// The walk over the elements, in tiles that fit the first-level cache.
//
// A tile is kTile elements or fewer, in flat order: some whole rows, or a part of one long row. A
// kernel sees the tile's elements as arrays of the type computed in, whatever dtype and strides the
// tensors have: a contiguous tensor of that type is read and written in place, others go through a
// buffer in the cache. Sums run over tiles and then over their results in order, so they do not
// depend on the number of threads.
#pragma once

#include <cstdlib>

#include "cpu/convert.h"
#include "cpu/stream.h"

namespace vae_fast::VF_ISA {

constexpr int kTile = 1024;
constexpr int kCacheLine = 64;
constexpr int64_t kColumnTasks = 64;          // pieces of a sum over rows
constexpr int64_t kElementsPerThread = 8192;  // below this a second thread costs more than it gives

struct Tile {
  int64_t index;
  int64_t row;    // first row
  int64_t start;  // first element, in flat order
  int count;      // elements
  int rows;       // rows of it, or 1 for a part of one
};

class Tiling {
 public:
  // samples: how often the kernel works on each element.
  explicit Tiling(Shape shape, int64_t samples = 1) : shape_(shape), samples_(samples) {
    if (shape.rows == 0 || shape.cols == 0) return;
    if (shape.cols < kTile) {
      rows_per_tile_ = kTile / shape.cols;
      count_ = (shape.rows + rows_per_tile_ - 1) / rows_per_tile_;
    } else {
      tiles_per_row_ = (shape.cols + kTile - 1) / kTile;
      count_ = shape.rows * tiles_per_row_;
    }
  }

  int64_t count() const { return count_; }
  int64_t tiles_per_row() const { return tiles_per_row_; }  // 1 where a tile has whole rows
  Shape shape() const { return shape_; }
  int64_t work() const { return samples_ * shape_.rows * shape_.cols; }
  // Whether results of so many samples are written past the caches.
  bool streams(int64_t samples = 1) const {
    return samples * shape_.rows * shape_.cols >= kStreamElements;
  }

  // Into how many groups of rows a sum over rows is cut: enough pieces for the threads, and no
  // more, since each keeps a sum a column.
  int64_t row_groups() const {
    const int64_t down = count_ / tiles_per_row_;
    const int64_t enough = (kColumnTasks + tiles_per_row_ - 1) / tiles_per_row_;
    const int64_t sparing = tiles_per_row_ == 1 ? down : down / 16;
    return enough < sparing ? enough : (sparing > 1 ? sparing : 1);
  }

  Tile tile(int64_t index) const {
    if (shape_.cols < kTile) {
      const int64_t row = index * rows_per_tile_;
      const int64_t left = shape_.rows - row;
      const int rows = static_cast<int>(left < rows_per_tile_ ? left : rows_per_tile_);
      return {index, row, row * shape_.cols, static_cast<int>(rows * shape_.cols), rows};
    }
    const int64_t row = index / tiles_per_row_;
    const int64_t column = (index % tiles_per_row_) * kTile;
    const int64_t left = shape_.cols - column;
    return {index, row, row * shape_.cols + column, static_cast<int>(left < kTile ? left : kTile),
            1};
  }

  // The same elements of one sample, in a tensor [L, N, D] of which L * N are the rows.
  Tile of_sample(const Tile& tile, int64_t sample) const {
    return {tile.index + sample * count_, tile.row + sample * shape_.rows,
            tile.start + sample * shape_.rows * shape_.cols, tile.count, tile.rows};
  }

 private:
  Shape shape_;
  int64_t samples_;
  int64_t rows_per_tile_ = 1;
  int64_t tiles_per_row_ = 1;
  int64_t count_ = 0;
};

// Calls body(tile, group) for each tile.
//
// Where a kernel sums over rows (by_column), the tiles at the same columns in one group of rows are
// done in order by one thread, which can so keep a running sum for each group and column.
template <class F>
inline void for_each_tile(const Tiling& tiling, int threads, bool by_column, F&& body) {
  const int64_t useful = tiling.work() / kElementsPerThread;
  if (threads > useful) threads = useful > 1 ? static_cast<int>(useful) : 1;
  const int64_t across = by_column ? tiling.tiles_per_row() : 1;
  const int64_t down = tiling.count() / across;
  const int64_t groups = by_column ? tiling.row_groups() : down;
  const auto run = [&](int64_t chunk) {
    const int64_t group = chunk / across, column = chunk % across;
    const int64_t end = down * (group + 1) / groups;
    for (int64_t i = down * group / groups; i < end; ++i)
      body(tiling.tile(i * across + column), group);
  };
  const int64_t chunks = groups * across;
  if (threads <= 1) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) run(chunk);
    end_of_stream();
    return;
  }
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static) nowait
    for (int64_t chunk = 0; chunk < chunks; ++chunk) run(chunk);
    end_of_stream();
  }
}

// Calls f(i, lanes) for i = 0, kWidth, ...: lanes is the width, or what is left at the end. The
// arrays of a tile may end there, so the last vector goes through get and put.
template <class T, class F>
VF_FN void for_each_vector(int count, F&& f) {
  constexpr int width = LanesOf<T>::width;
  int i = 0;
  for (; i + width <= count; i += width) f(i, width);
  if (i < count) f(i, count - i);
}

template <class S>
VF_FN F32 get(const S* p, int lanes) {
  return lanes == kWidth ? load(p) : load_part(p, lanes);
}
VF_FN double get(const double* p, int) { return *p; }
template <class S>
VF_FN void put(S* p, int lanes, F32 a) {
  lanes == kWidth ? store(p, a) : store_part(p, lanes, a);
}
VF_FN void put(double* p, int, double a) { *p = a; }

// Where a kernel writes the values of a tile, as elements of S.
template <class S>
struct Target {
  S* at = nullptr;       // null: nowhere
  bool streams = false;  // past the caches; at is a multiple of a vector's size then

  VF_FN explicit operator bool() const { return at != nullptr; }
  VF_FN void put(int i, int lanes, F32 a) const {
    if (streams && lanes == kWidth) {
      stream(at + i, a);
    } else {
      VF_ISA::put(at + i, lanes, a);
    }
  }
  VF_FN void put(int i, int lanes, double a) const {  // one lane: not worth streaming
    VF_ISA::put(at + i, lanes, a);
  }
};

template <class S>
VF_FN Target<S> target_at(S* at, bool streams) {
  return {at, streams && reinterpret_cast<uintptr_t>(at) % kLine == 0};
}

// Working memory of a tile.
template <class T>
struct Buffer {
  alignas(64) T data[kTile];
};

// Rows that lie apart are no stream that the processor would see by itself. At 32768 x 128 float32
// it takes 4.6 ms instead of 6.6 to read two such tensors and sample; the gradients of 100000 x 20
// written to two, 4.6 instead of 5.2 (AMD EPYC Zen 5, one thread).
constexpr int kTilesAhead = 2;

// Brings what will be read soon, or written, into the second-level cache.
template <int kWrite = 0, class S>
inline void prefetch(const S* data, int count) {
  const auto* next = reinterpret_cast<const char*>(data);
  const int bytes = count * static_cast<int>(sizeof(S));
  for (int i = 0; i < bytes; i += kCacheLine) __builtin_prefetch(next + i, kWrite, 2);
}

// Elements [start, start + count) of a strided operand into target.
template <class S, class T>
inline void gather(const Operand& a, const S* data, int64_t start, int count, T* target) {
  int64_t index[kMaxDims];
  int64_t offset = 0;
  for (int d = a.dims - 1; d >= 0; --d) {
    index[d] = start % a.sizes[d];
    start /= a.sizes[d];
    offset += index[d] * a.strides[d];
  }
  const int inner = a.dims - 1;
  const int64_t stride = a.strides[inner];
  // To the same row of a later tile, where a tile has whole rows.
  const int64_t rows = inner > 0 ? count / a.sizes[inner] : 0;
  const int64_t ahead = rows > 0 ? kTilesAhead * rows * a.strides[inner - 1] : 0;
  while (count > 0) {
    const int64_t left = a.sizes[inner] - index[inner];
    const int run = static_cast<int>(left < count ? left : count);
    if (stride == 1) {
      if (ahead != 0) prefetch(data + offset + ahead, run);
      widen_run(data + offset, target, run);
    } else if (stride == 0) {
      const T value = to_compute<T>(data[offset]);
      for (int i = 0; i < run; ++i) target[i] = value;
    } else {
      for (int i = 0; i < run; ++i) target[i] = to_compute<T>(data[offset + i * stride]);
    }
    target += run;
    count -= run;
    offset += run * stride;
    index[inner] += run;
    for (int d = inner; d > 0 && index[d] == a.sizes[d]; --d) {
      index[d] = 0;
      ++index[d - 1];
      offset += a.strides[d - 1] - a.sizes[d] * a.strides[d];
    }
  }
}

// Writes values from element start of a contiguous output on, in its dtype.
template <class T>
inline void write_run(const T* values, const Output& output, int64_t start, int count,
                      bool streams) {
  with_element(output.dtype, output.data, [&](auto* p) {
    if (!streams) return narrow_run(values, p + start, count);
    alignas(kLine) std::remove_pointer_t<decltype(p)> narrow[kTile];
    narrow_run(values, narrow, count);
    stream_run(narrow, p + start, count);
  });
}

// Where a tile begins in an output with an element each.
inline int64_t place(const Tile& tile, const Output& output) {
  return tile.start + tile.row * output.row_gap;
}

// Writes the values of a tile to such an output, in its dtype.
template <class T>
inline void write_tile(const T* values, const Output& output, const Tile& tile, bool streams) {
  const int64_t start = place(tile, output);
  if (output.row_gap == 0 || tile.rows == 1)
    return write_run(values, output, start, tile.count, streams);
  const int cols = tile.count / tile.rows;
  const int64_t size = cols + output.row_gap, ahead = kTilesAhead * tile.rows * size;
  const auto write_rows = [&](const auto* from, auto* to) {
    // Of a short row few lines are written whole, and lines that are not must not go past.
    const bool past_caches = streams && cols * static_cast<int>(sizeof *to) >= 8 * kLine;
    for (int row = 0; row < tile.rows; ++row, from += cols, to += size) {
      if (past_caches) {
        stream_run(from, to, cols);
      } else {
        prefetch<1>(to + ahead, cols);
        for (int i = 0; i < cols; ++i) to[i] = from[i];
      }
    }
  };
  with_element(output.dtype, output.data, [&](auto* p) {
    using S = std::remove_pointer_t<decltype(p)>;
    if constexpr (std::is_same_v<S, T>) {
      write_rows(values, p + start);
    } else {
      Buffer<S> narrow;
      narrow_run(values, narrow.data, tile.count);
      write_rows(narrow.data, p + start);
    }
  });
}

// The elements of an operand from start on, in place where they can be read so, else in buffer. Of
// half precision only in place.
template <class T>
inline const T* read(const Operand& a, int64_t start, int count, T* buffer) {
  if constexpr (kIsHalf<T>) {
    return static_cast<const T*>(a.data) + start;
  } else {
    if (a.dims == 0 && a.dtype == kDTypeOf<T>) return static_cast<const T*>(a.data) + start;
    with_element(a.dtype, a.data, [&](const auto* p) {
      if (a.dims > 0) return gather(a, p, start, count, buffer);
      // The next tile, on its way while this one is computed with: a fifth less time for
      // negative_elbo on large bfloat16 tensors (AMD Zen 5). In place it would be a loss.
      prefetch(p + start + count, count);
      widen_run(p + start, buffer, count);
    });
    return buffer;
  }
}

// One value a row, [rows], times scale, repeated for each element of the tile; and, in any_zero,
// whether one is 0.
template <class T>
inline const T* read_rows(const Operand& a, const Tile& tile, int64_t cols, T* buffer, T scale,
                          bool& any_zero) {
  Buffer<T> rows;
  const T* values = read(a, tile.row, tile.rows, rows.data);
  const int each = tile.rows == 1 ? tile.count : static_cast<int>(cols);
  T* target = buffer;
  any_zero = false;
  for (int row = 0; row < tile.rows; ++row) {
    const T value = values[row] * scale;
    any_zero |= value == 0;
    for (int i = 0; i < each; ++i) *target++ = value;
  }
  return buffer;
}

template <class T>
inline const T* read_rows(const Operand& a, const Tile& tile, int64_t cols, T* buffer) {
  bool any_zero;
  return read_rows(a, tile, cols, buffer, T(1), any_zero);
}

// Adds one value a column, [cols], to each element of the tile.
template <class T>
inline void add_columns(const Operand& a, const Tile& tile, int64_t cols, T* target) {
  Buffer<T> buffer;
  const int run = tile.count / tile.rows;
  const T* values = read(a, tile.start % cols, run, buffer.data);
  for (int row = 0; row < tile.rows; ++row)
    for (int i = 0; i < run; ++i) *target++ += values[i];
}

// Sum in a fixed order: lane by lane over the vectors, then over the lanes. The end of a row, which
// may be all of it, goes by registers.
VF_FN float sum(const float* values, int count) {
  if (count <= kRegister) return sum_of_lanes(load_register(values, count));
  F32 lanes(0.0f);
  int i = 0;
  for (; i + kWidth <= count; i += kWidth) lanes = lanes + load(values + i);
  if (i + kRegister <= count) {
    lanes.low = lanes.low + load_register(values + i);
    i += kRegister;
    if (i < count) lanes.high = lanes.high + load_register(values + i, count - i);
  } else if (i < count) {
    lanes.low = lanes.low + load_register(values + i, count - i);
  }
  return sum_of_lanes(lanes);
}
VF_FN double sum(const double* values, int count) {
  double total = 0;
  for (int i = 0; i < count; ++i) total += values[i];
  return total;
}

}  // namespace vae_fast::VF_ISA
