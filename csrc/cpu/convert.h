// Elements of any dtype to and from the type computed in.
#pragma once

#include <type_traits>

#include "cpu/operand.h"
#include "cpu/simd.h"

namespace vae_fast::VF_ISA {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

VF_FN float widen(BFloat16 a) {
  const uint32_t word = static_cast<uint32_t>(a.bits) << 16;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

VF_FN BFloat16 narrow_bfloat16(float a) {
  uint32_t word;
  std::memcpy(&word, &a, sizeof word);
  const bool nan = (word & 0x7FFFFFFFu) > 0x7F800000u;
  const uint32_t rounded = (word + 0x7FFFu + ((word >> 16) & 1u)) >> 16;  // to nearest even
  return {static_cast<uint16_t>(nan ? 0x7FC0u : rounded)};
}

VF_FN float widen(Half a) {
  const uint32_t sign = static_cast<uint32_t>(a.bits & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(a.bits & 0x7FFFu) << 13;
  uint32_t word;
  float value;
  if (magnitude >= 0x0F800000u) {  // infinity or NaN
    word = sign | magnitude | 0x70000000u;
    std::memcpy(&value, &word, sizeof value);
  } else {  // scaling by 2^112 moves the exponent's bias, and normalises the subnormal
    word = sign | magnitude;
    std::memcpy(&value, &word, sizeof value);
    value *= 0x1p112f;
  }
  return value;
}

VF_FN Half narrow_half(float a) {
  uint32_t word;
  std::memcpy(&word, &a, sizeof word);
  const uint32_t sign = (word >> 16) & 0x8000u;
  uint32_t magnitude = word & 0x7FFFFFFFu;
  uint32_t bits;
  if (magnitude > 0x7F800000u) {
    bits = 0x7E00u;
  } else if (magnitude >= 0x477FF000u) {  // 65520 and more round to infinity
    bits = 0x7C00u;
  } else if (magnitude < 0x38800000u) {  // subnormal: let the addition of 1/2 round it
    float value;
    std::memcpy(&value, &magnitude, sizeof value);
    value += 0.5f;
    std::memcpy(&bits, &value, sizeof bits);
    bits -= 0x3F000000u;
  } else {
    magnitude += 0xFFFu + ((magnitude >> 13) & 1u);
    bits = (magnitude - 0x38000000u) >> 13;
  }
  return {static_cast<uint16_t>(sign | bits)};
}

template <class T>
VF_FN T to_compute(float a) {
  return static_cast<T>(a);
}
template <class T>
VF_FN T to_compute(double a) {
  return static_cast<T>(a);
}
template <class T>
VF_FN T to_compute(Half a) {
  return static_cast<T>(widen(a));
}
template <class T>
VF_FN T to_compute(BFloat16 a) {
  return static_cast<T>(widen(a));
}

template <class T>
VF_FN void from_compute(T a, float* p) {
  *p = static_cast<float>(a);
}
template <class T>
VF_FN void from_compute(T a, double* p) {
  *p = static_cast<double>(a);
}
template <class T>
VF_FN void from_compute(T a, Half* p) {
  *p = narrow_half(static_cast<float>(a));
}
template <class T>
VF_FN void from_compute(T a, BFloat16* p) {
  *p = narrow_bfloat16(static_cast<float>(a));
}

template <class S, class T>
inline void widen_run(const S* source, T* target, int count) {
  for (int i = 0; i < count; ++i) target[i] = to_compute<T>(source[i]);
}

template <class T, class S>
inline void narrow_run(const T* source, S* target, int count) {
  for (int i = 0; i < count; ++i) from_compute(source[i], target + i);
}

#if defined(__AVX2__)
// The branches above keep compilers from vectorising half precision; the processor has it.
template <>
inline void widen_run<Half, float>(const Half* source, float* target, int count) {
  int i = 0;
  for (; i + 8 <= count; i += 8) {
    __m128i words;
    std::memcpy(&words, source + i, sizeof words);
    _mm256_storeu_ps(target + i, _mm256_cvtph_ps(words));
  }
  for (; i < count; ++i) target[i] = widen(source[i]);
}

template <>
inline void narrow_run<float, Half>(const float* source, Half* target, int count) {
  int i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i words = _mm256_cvtps_ph(_mm256_loadu_ps(source + i), _MM_FROUND_TO_NEAREST_INT);
    std::memcpy(target + i, &words, sizeof words);
  }
  for (; i < count; ++i) target[i] = narrow_half(source[i]);
}
#endif

// Calls f with a pointer of the element type that dtype names.
template <class F>
VF_FN void with_element(DType dtype, const void* data, F&& f) {
  switch (dtype) {
    case DType::float64: f(static_cast<const double*>(data)); break;
    case DType::float32: f(static_cast<const float*>(data)); break;
    case DType::float16: f(static_cast<const Half*>(data)); break;
    case DType::bfloat16: f(static_cast<const BFloat16*>(data)); break;
  }
}

template <class F>
VF_FN void with_element(DType dtype, void* data, F&& f) {
  with_element(dtype, static_cast<const void*>(data), [&](const auto* p) {
    using Element = std::remove_const_t<std::remove_pointer_t<decltype(p)>>;
    f(const_cast<Element*>(p));
  });
}

template <class T>
constexpr DType kDTypeOf = sizeof(T) == 8 ? DType::float64 : DType::float32;

}  // namespace vae_fast::VF_ISA
