// Tensors in heap memory of exactly their size, so that a sanitizer sees an access outside them.
#pragma once

#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "cpu/kernels.h"

namespace vae_fast {

inline size_t size_of(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}

// Half precision by the textbook, independent of the kernels' conversions: values are multiples of
// 1/64 below 4 where a test needs them exact in every dtype.
inline double decode(const void* p, DType dtype) {
  if (dtype == DType::float64) return *static_cast<const double*>(p);
  if (dtype == DType::float32) return *static_cast<const float*>(p);
  const uint16_t bits = *static_cast<const uint16_t*>(p);
  const int mantissa_bits = dtype == DType::float16 ? 10 : 7;
  const int bias = dtype == DType::float16 ? 15 : 127;
  const int exponent = (bits & 0x7FFF) >> mantissa_bits;
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  const double fraction = mantissa / static_cast<double>(1 << mantissa_bits);
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias);
  if (exponent == 2 * bias + 1) return mantissa ? NAN : sign * INFINITY;
  return sign * std::ldexp(1.0 + fraction, exponent - bias);
}

inline void encode(double value, void* p, DType dtype) {
  if (dtype == DType::float64) {
    *static_cast<double*>(p) = value;
  } else if (dtype == DType::float32) {
    *static_cast<float*>(p) = static_cast<float>(value);
  } else {
    const int mantissa_bits = dtype == DType::float16 ? 10 : 7;
    const int bias = dtype == DType::float16 ? 15 : 127;
    int exponent = 0;
    const double fraction = std::frexp(std::fabs(value), &exponent);  // in [1/2, 1)
    const uint16_t sign = value < 0 ? 0x8000 : 0;
    const uint16_t magnitude =
        value == 0 ? 0
                   : static_cast<uint16_t>(((exponent - 1 + bias) << mantissa_bits) +
                                           std::lround((2 * fraction - 1) * (1 << mantissa_bits)));
    *static_cast<uint16_t*>(p) = sign | magnitude;
  }
}

struct Tensor {
  int64_t count;
  DType dtype;
  std::unique_ptr<char[]> memory;

  Tensor(int64_t count, DType dtype)
      : count(count), dtype(dtype), memory(new char[count * size_of(dtype)]) {
    std::memset(memory.get(), 0xFF, count * size_of(dtype));  // NaN in every dtype
  }
  // Multiples of 1/64 in (-2, 2).
  Tensor(int64_t count, DType dtype, unsigned seed) : Tensor(count, dtype) {
    std::mt19937 random(seed);
    for (int64_t i = 0; i < count; ++i)
      encode((static_cast<int>(random() % 255) - 127) / 64.0, at(i), dtype);
  }
  void* at(int64_t i) { return memory.get() + i * size_of(dtype); }
  double operator[](int64_t i) const { return decode(memory.get() + i * size_of(dtype), dtype); }

  Operand operand() const {
    Operand a;
    a.data = memory.get();
    a.dtype = dtype;
    return a;
  }
  Operand strided(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) const {
    Operand a = operand();
    a.dims = static_cast<int>(sizes.size());
    for (int d = 0; d < a.dims; ++d) {
      a.sizes[d] = sizes[d];
      a.strides[d] = strides[d];
    }
    return a;
  }
  Output output(Reduction reduction = Reduction::full) { return {memory.get(), dtype, reduction}; }
};

}  // namespace vae_fast
