// Elements of any dtype to and from the type computed in.
#pragma once

#include <type_traits>

#include "cpu/operand.h"
#include "cpu/vector.h"

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
  const uint32_t magnitude = static_cast<uint32_t>(a.bits & 0x7FFFu) << 13;
  const bool finite = magnitude < 0x0F800000u;  // or infinity or NaN
  const uint32_t word =
      static_cast<uint32_t>(a.bits & 0x8000u) << 16 | magnitude | (finite ? 0u : 0x70000000u);
  float value;
  std::memcpy(&value, &word, sizeof value);
  // Scaling by 2^112 moves the exponent's bias, and normalises the subnormal.
  return finite ? value * 0x1p112f : value;
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

// A register's elements in half precision.
typedef uint16_t HalfWords __attribute__((vector_size(2 * kRegister)));

VF_FN FloatRegister widen(HalfWords words, BFloat16) {
#if defined(__AVX512F__)
  const WordRegister word = WordRegister::Vector(_mm512_cvtepu16_epi32(__m256i(words)));
#elif defined(__AVX2__)
  const WordRegister word = WordRegister::Vector(_mm256_cvtepu16_epi32(__m128i(words)));
#else
  const WordRegister word = __builtin_convertvector(words, WordRegister::Vector);
#endif
  return from_bits(word << 16);
}
VF_FN HalfWords narrow(FloatRegister a, BFloat16) {
#if defined(__AVX512BF16__)
  // One instruction in place of nine. It makes 0 of what is below the least normal number.
  const __m256bh made = _mm512_cvtneps_pbh(__m512(a.v));
  HalfWords words;
  std::memcpy(&words, &made, sizeof words);
  return words;
#else
  const WordRegister word = bits(a),
                     rounded = word + WordRegister(0x7FFFu) + ((word >> 16) & WordRegister(1u));
  const WordRegister right(
      a.v == a.v ? rounded.v : WordRegister(0x7FC00000u).v);  // a NaN may have become infinity
#if defined(__AVX512F__)
  return HalfWords(_mm512_cvtepi32_epi16(__m512i((right >> 16).v)));
#elif defined(__AVX2__)
  const __m256i high(__m256i((right >> 16).v));
  return HalfWords(
      _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)));
#else
  return __builtin_convertvector((right >> 16).v, HalfWords);
#endif
#endif
}

VF_FN FloatRegister widen(HalfWords words, Half) {
#if defined(__AVX512F__)
  return FloatRegister::Vector(_mm512_cvtph_ps(__m256i(words)));
#elif defined(__AVX2__)
  return FloatRegister::Vector(_mm256_cvtph_ps(__m128i(words)));
#elif defined(__aarch64__)
  return FloatRegister::Vector(vcvt_f32_f16(vreinterpret_f16_u16(uint16x4_t(words))));
#else
  FloatRegister a(0.0f);
  for (int lane = 0; lane < kRegister; ++lane) a.v[lane] = widen(Half{words[lane]});
  return a;
#endif
}
VF_FN HalfWords narrow(FloatRegister a, Half) {
#if defined(__AVX512F__)
  return HalfWords(_mm512_cvtps_ph(__m512(a.v), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
  return HalfWords(_mm256_cvtps_ph(__m256(a.v), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__aarch64__)
  return HalfWords(vreinterpret_u16_f16(vcvt_f16_f32(float32x4_t(a.v))));
#else
  HalfWords words{};
  for (int lane = 0; lane < kRegister; ++lane) words[lane] = narrow_half(a.v[lane]).bits;
  return words;
#endif
}

template <class S>
constexpr bool kIsHalf = sizeof(S) == sizeof(uint16_t);

template <class S, class = std::enable_if_t<kIsHalf<S>>>
VF_FN FloatRegister load_register(const S* p) {
  HalfWords words;
  std::memcpy(&words, p, sizeof words);
  return widen(words, S{});
}
template <class S, class = std::enable_if_t<kIsHalf<S>>>
VF_FN void store_register(S* p, FloatRegister a) {
  const HalfWords words = narrow(a, S{});
  std::memcpy(p, &words, sizeof words);
}
// The first lanes of a register in memory; the others are 0.
template <class S, class = std::enable_if_t<kIsHalf<S>>>
VF_FN FloatRegister load_register(const S* p, int lanes) {
#if defined(__AVX512F__)
  return widen(HalfWords(_mm256_maskz_loadu_epi16(mask_of(lanes), p)), S{});
#else
  HalfWords words{};
  std::memcpy(&words, p, sizeof(S) * lanes);
  return widen(words, S{});
#endif
}
template <class S, class = std::enable_if_t<kIsHalf<S>>>
VF_FN void store_register(S* p, int lanes, FloatRegister a) {
  const HalfWords words = narrow(a, S{});
#if defined(__AVX512F__)
  _mm256_mask_storeu_epi16(p, mask_of(lanes), __m256i(words));
#else
  std::memcpy(p, &words, sizeof(S) * lanes);
#endif
}

template <class S, class T>
inline void widen_run(const S* source, T* target, int count) {
  int i = 0;
  if constexpr (kIsHalf<S> && sizeof(T) == sizeof(float)) {
    for (; i + kWidth <= count; i += kWidth) store(target + i, load(source + i));
  }
  for (; i < count; ++i) target[i] = to_compute<T>(source[i]);
}

template <class T, class S>
inline void narrow_run(const T* source, S* target, int count) {
  int i = 0;
  if constexpr (kIsHalf<S> && sizeof(T) == sizeof(float)) {
    for (; i + kWidth <= count; i += kWidth) store(target + i, load(source + i));
  }
  for (; i < count; ++i) from_compute(source[i], target + i);
}

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

template <class S>
constexpr DType kDTypeOf = sizeof(S) == 8 ? DType::float64 : DType::float32;
template <>
inline constexpr DType kDTypeOf<Half> = DType::float16;
template <>
inline constexpr DType kDTypeOf<BFloat16> = DType::bfloat16;

}  // namespace vae_fast::VF_ISA
