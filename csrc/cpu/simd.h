// The widest registers that this file is compiled for, of float and of 32-bit words.
//
// Operators come from the compiler's vector types; what these lack is written in intrinsics for
// AVX-512, AVX2 and 64-bit ARM's NEON, and lane by lane elsewhere, which compilers turn into SSE.
#pragma once

#include <cstring>

#include "common/philox.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace vae_fast::VF_ISA {

#if defined(__AVX512F__)
constexpr int kRegister = 16;
#elif defined(__AVX2__)
constexpr int kRegister = 8;
#else
constexpr int kRegister = 4;
#endif

struct WordRegister {
  typedef uint32_t Vector __attribute__((vector_size(4 * kRegister)));
  Vector v;

  VF_FN WordRegister() = default;
  VF_FN WordRegister(Vector v) : v(v) {}
  VF_FN WordRegister(uint32_t scalar) : v(Vector{} + scalar) {}
};

VF_FN WordRegister operator+(WordRegister a, WordRegister b) { return a.v + b.v; }
VF_FN WordRegister operator-(WordRegister a, WordRegister b) { return a.v - b.v; }
VF_FN WordRegister operator^(WordRegister a, WordRegister b) { return a.v ^ b.v; }
VF_FN WordRegister operator&(WordRegister a, WordRegister b) { return a.v & b.v; }
VF_FN WordRegister operator<<(WordRegister a, int n) { return a.v << n; }
VF_FN WordRegister operator>>(WordRegister a, int n) { return a.v >> n; }

struct FloatRegister {
  typedef float Vector __attribute__((vector_size(4 * kRegister)));
  Vector v;

  VF_FN FloatRegister() = default;
  VF_FN FloatRegister(Vector v) : v(v) {}
  VF_FN FloatRegister(float scalar) : v(Vector{} + scalar) {}
};

VF_FN FloatRegister operator+(FloatRegister a, FloatRegister b) { return a.v + b.v; }
VF_FN FloatRegister operator-(FloatRegister a, FloatRegister b) { return a.v - b.v; }
VF_FN FloatRegister operator*(FloatRegister a, FloatRegister b) { return a.v * b.v; }
VF_FN FloatRegister operator/(FloatRegister a, FloatRegister b) { return a.v / b.v; }
VF_FN FloatRegister operator-(FloatRegister a) { return -a.v; }

VF_FN WordRegister bits(FloatRegister a) { return reinterpret_cast<WordRegister::Vector>(a.v); }
VF_FN FloatRegister from_bits(WordRegister a) {
  return reinterpret_cast<FloatRegister::Vector>(a.v);
}

VF_FN FloatRegister load_register(const float* p) {
  FloatRegister a;
  std::memcpy(&a, p, sizeof a);
  return a;
}
VF_FN void store_register(float* p, FloatRegister a) { std::memcpy(p, &a, sizeof a); }

#if defined(__AVX512F__)
VF_FN __mmask16 mask_of(int lanes) { return static_cast<__mmask16>((1u << lanes) - 1); }
#elif defined(__AVX2__)
VF_FN __m256i first_lanes(int lanes) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

// The first lanes of a register in memory; the others are 0.
VF_FN FloatRegister load_register(const float* p, int lanes) {
#if defined(__AVX512F__)
  return FloatRegister::Vector(_mm512_maskz_loadu_ps(mask_of(lanes), p));
#elif defined(__AVX2__)
  return FloatRegister::Vector(_mm256_maskload_ps(p, first_lanes(lanes)));
#else
  FloatRegister a(0.0f);
  for (int lane = 0; lane < lanes; ++lane) a.v[lane] = p[lane];
  return a;
#endif
}
VF_FN void store_register(float* p, int lanes, FloatRegister a) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, mask_of(lanes), __m512(a.v));
#elif defined(__AVX2__)
  _mm256_maskstore_ps(p, first_lanes(lanes), __m256(a.v));
#else
  for (int lane = 0; lane < lanes; ++lane) p[lane] = a.v[lane];
#endif
}

// By halves: each lane of the lower one and its fellow of the upper one, and so on.
VF_FN float sum_of_lanes(FloatRegister a) {
#if defined(__SSE2__)
#if defined(__AVX512F__)
  const __m256 eight =
      _mm256_add_ps(_mm512_castps512_ps256(__m512(a.v)), _mm512_extractf32x8_ps(__m512(a.v), 1));
#elif defined(__AVX2__)
  const __m256 eight = __m256(a.v);
#endif
#if defined(__AVX2__)
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
#else
  const __m128 four = __m128(a.v);
#endif
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
#else
  for (int half = kRegister / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) a.v[lane] += a.v[lane + half];
  return a.v[0];
#endif
}

VF_FN FloatRegister fma(FloatRegister a, FloatRegister b, FloatRegister c) {
#if defined(__AVX512F__)
  return FloatRegister::Vector(_mm512_fmadd_ps(__m512(a.v), __m512(b.v), __m512(c.v)));
#elif defined(__AVX2__)
  return FloatRegister::Vector(_mm256_fmadd_ps(__m256(a.v), __m256(b.v), __m256(c.v)));
#elif defined(__aarch64__)
  return FloatRegister::Vector(vfmaq_f32(float32x4_t(c.v), float32x4_t(a.v), float32x4_t(b.v)));
#else
  return a.v * b.v + c.v;
#endif
}

VF_FN FloatRegister sqrt(FloatRegister a) {
#if defined(__AVX512F__)
  return FloatRegister::Vector(_mm512_sqrt_ps(__m512(a.v)));
#elif defined(__AVX2__)
  return FloatRegister::Vector(_mm256_sqrt_ps(__m256(a.v)));
#elif defined(__aarch64__)
  return FloatRegister::Vector(vsqrtq_f32(float32x4_t(a.v)));
#else
  for (int i = 0; i < kRegister; ++i) a.v[i] = __builtin_sqrtf(a.v[i]);
  return a;
#endif
}

// The second operand where either is NaN, as the x86 instructions have it.
VF_FN FloatRegister min(FloatRegister a, FloatRegister b) {
#if defined(__AVX512F__)
  return FloatRegister::Vector(_mm512_min_ps(__m512(a.v), __m512(b.v)));
#elif defined(__AVX2__)
  return FloatRegister::Vector(_mm256_min_ps(__m256(a.v), __m256(b.v)));
#else
  return FloatRegister(a.v < b.v ? a.v : b.v);
#endif
}

VF_FN FloatRegister max(FloatRegister a, FloatRegister b) {
#if defined(__AVX512F__)
  return FloatRegister::Vector(_mm512_max_ps(__m512(a.v), __m512(b.v)));
#elif defined(__AVX2__)
  return FloatRegister::Vector(_mm256_max_ps(__m256(a.v), __m256(b.v)));
#else
  return FloatRegister(a.v > b.v ? a.v : b.v);
#endif
}

// a where k is zero (of either sign), else b.
VF_FN FloatRegister select_zero(FloatRegister k, FloatRegister a, FloatRegister b) {
  return FloatRegister(k.v == FloatRegister(0.0f).v ? a.v : b.v);
}
// a where v > limit, else b.
VF_FN FloatRegister select_above(FloatRegister v, FloatRegister limit, FloatRegister a,
                                 FloatRegister b) {
  return FloatRegister(v.v > limit.v ? a.v : b.v);
}
// below where a < limit, else otherwise.
VF_FN FloatRegister select_below(FloatRegister a, FloatRegister limit, FloatRegister below,
                                 FloatRegister otherwise) {
  return FloatRegister(a.v < limit.v ? below.v : otherwise.v);
}
// value where a == b, else 0.
VF_FN FloatRegister select_equal(FloatRegister a, FloatRegister b, FloatRegister value) {
  return FloatRegister(a.v == b.v ? value.v : FloatRegister(0.0f).v);
}

// 1 where a < limit, else 0.
VF_FN WordRegister one_below(WordRegister a, WordRegister limit) {
  return WordRegister(WordRegister::Vector(a.v < limit.v)) & WordRegister(1u);
}

VF_FN FloatRegister signed_to_float(WordRegister a) {
  typedef int32_t Signed __attribute__((vector_size(4 * kRegister)));
  return __builtin_convertvector(reinterpret_cast<Signed>(a.v), FloatRegister::Vector);
}

// Rounded to nearest, as the conversion of one word is.
VF_FN FloatRegister unsigned_to_float(WordRegister a) {
#if defined(__AVX512F__)
  return FloatRegister::Vector(_mm512_cvtepu32_ps(__m512i(a.v)));
#elif defined(__aarch64__)
  return FloatRegister::Vector(vcvtq_f32_u32(uint32x4_t(a.v)));
#else
  // Both halves and the product are exact, so only the addition rounds.
  return signed_to_float(a >> 16) * FloatRegister(65536.0f) +
         signed_to_float(a & WordRegister(0xFFFFu));
#endif
}

#if defined(__AVX512F__)
// a 2^k for integral k, 0 or infinity among the results.
VF_FN FloatRegister scaled(FloatRegister a, FloatRegister k) {
  return FloatRegister::Vector(_mm512_scalef_ps(__m512(a.v), __m512(k.v)));
}
#endif

#if defined(__aarch64__)
// kRegister words, for multiplications: here as they are.
struct WideRegister : WordRegister {
  using WordRegister::WordRegister;
  VF_FN WideRegister(WordRegister a) : WordRegister(a) {}
  VF_FN WordRegister words() const { return *this; }
};

VF_FN void multiply_high_low(uint32_t a, WideRegister b, WideRegister& high, WideRegister& low) {
  const uint32x4_t factor = vdupq_n_u32(a), words = uint32x4_t(b.v);
  const uint32x4_t first =
      vreinterpretq_u32_u64(vmull_u32(vget_low_u32(words), vget_low_u32(factor)));
  const uint32x4_t second = vreinterpretq_u32_u64(vmull_high_u32(words, factor));
  low = WordRegister::Vector(vuzp1q_u32(first, second));
  high = WordRegister::Vector(vuzp2q_u32(first, second));
}
#else
// kRegister words in lanes of 64 bits, the even and the odd ones apart, for multiplications: the
// processor multiplies such lanes in whole, by their low halves. The high halves hold anything.
// Two vectors also are two chains of work, and one alone would wait for its own results.
struct WideRegister {
#if defined(__AVX512F__)
  typedef uint64_t Vector __attribute__((vector_size(64)));
#elif defined(__AVX2__)
  typedef uint64_t Vector __attribute__((vector_size(32)));
#else
  typedef uint64_t Vector __attribute__((vector_size(16)));
#endif
  Vector even, odd;

  VF_FN WideRegister() = default;
  VF_FN WideRegister(Vector even, Vector odd) : even(even), odd(odd) {}
  VF_FN WideRegister(uint32_t scalar) : even(Vector{} + scalar), odd(Vector{} + scalar) {}
  VF_FN explicit WideRegister(WordRegister a)
      : even(reinterpret_cast<Vector>(a.v)), odd(even >> 32) {}
  VF_FN WordRegister words() const {
#if defined(__AVX512F__)
    return WordRegister::Vector(
        _mm512_mask_shuffle_epi32(__m512i(even), 0xAAAA, __m512i(odd), _MM_PERM_CCAA));
#elif defined(__AVX2__)
    return WordRegister::Vector(_mm256_blend_epi32(__m256i(even), __m256i(odd << 32), 0xAA));
#else
    return reinterpret_cast<WordRegister::Vector>((even & 0xFFFFFFFFu) | (odd << 32));
#endif
  }
};

VF_FN WideRegister operator^(WideRegister a, WideRegister b) {
  return {a.even ^ b.even, a.odd ^ b.odd};
}

VF_FN WideRegister::Vector multiply_low_halves(uint32_t a, WideRegister::Vector b) {
#if defined(__AVX512F__)
  return WideRegister::Vector(_mm512_mul_epu32(_mm512_set1_epi64(a), __m512i(b)));
#elif defined(__AVX2__)
  return WideRegister::Vector(_mm256_mul_epu32(_mm256_set1_epi64x(a), __m256i(b)));
#elif defined(__SSE2__)
  return WideRegister::Vector(_mm_mul_epu32(_mm_set1_epi64x(a), __m128i(b)));
#else
  return (b & 0xFFFFFFFFu) * a;
#endif
}

VF_FN void multiply_high_low(uint32_t a, WideRegister b, WideRegister& high, WideRegister& low) {
  low = {multiply_low_halves(a, b.even), multiply_low_halves(a, b.odd)};
  high = {low.even >> 32, low.odd >> 32};
}
#endif

// Which of kRegister consecutive blocks of four a lane must work on for store_blocks to be in
// order.
VF_FN WordRegister block_of_register() {
  WordRegister block;
  for (int lane = 0; lane < kRegister; ++lane)
    block.v[lane] = (kRegister / 4) * (lane % 4) + lane / 4;
  return block;
}

// Stores a[0..3] of block 0, of block 1, ...: 4 * kRegister floats. Four lanes of 128 bits at a
// time are transposed within themselves; the order of the blocks makes that enough.
VF_FN void store_blocks(float* p, const FloatRegister (&a)[4]) {
#if defined(__AVX512F__)
  const __m512 low01 = _mm512_unpacklo_ps(__m512(a[0].v), __m512(a[1].v));
  const __m512 high01 = _mm512_unpackhi_ps(__m512(a[0].v), __m512(a[1].v));
  const __m512 low23 = _mm512_unpacklo_ps(__m512(a[2].v), __m512(a[3].v));
  const __m512 high23 = _mm512_unpackhi_ps(__m512(a[2].v), __m512(a[3].v));
  const auto join_low = [](__m512 x, __m512 y) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
  };
  const auto join_high = [](__m512 x, __m512 y) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
  };
  _mm512_storeu_ps(p, join_low(low01, low23));
  _mm512_storeu_ps(p + 16, join_high(low01, low23));
  _mm512_storeu_ps(p + 32, join_low(high01, high23));
  _mm512_storeu_ps(p + 48, join_high(high01, high23));
#elif defined(__AVX2__)
  const __m256 low01 = _mm256_unpacklo_ps(__m256(a[0].v), __m256(a[1].v));
  const __m256 high01 = _mm256_unpackhi_ps(__m256(a[0].v), __m256(a[1].v));
  const __m256 low23 = _mm256_unpacklo_ps(__m256(a[2].v), __m256(a[3].v));
  const __m256 high23 = _mm256_unpackhi_ps(__m256(a[2].v), __m256(a[3].v));
  const auto join_low = [](__m256 x, __m256 y) {
    return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(x), _mm256_castps_pd(y)));
  };
  const auto join_high = [](__m256 x, __m256 y) {
    return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(x), _mm256_castps_pd(y)));
  };
  _mm256_storeu_ps(p, join_low(low01, low23));
  _mm256_storeu_ps(p + 8, join_high(low01, low23));
  _mm256_storeu_ps(p + 16, join_low(high01, high23));
  _mm256_storeu_ps(p + 24, join_high(high01, high23));
#elif defined(__aarch64__)
  const float32x4x4_t words = {
      {float32x4_t(a[0].v), float32x4_t(a[1].v), float32x4_t(a[2].v), float32x4_t(a[3].v)}};
  vst4q_f32(p, words);
#else
  for (int lane = 0; lane < kRegister; ++lane)
    for (int word = 0; word < 4; ++word) p[4 * lane + word] = a[word].v[lane];
#endif
}

}  // namespace vae_fast::VF_ISA
