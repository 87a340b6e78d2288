// Writing past the caches, what is too large for its next reader to find there.
//
// An ordinary store to a line that is not in the cache reads the line first. Written whole and past
// the caches it is not read: 5 units of traffic in place of 7 for a loss that reads three tensors
// and writes two, and 30 % less time (AMD Zen 5, 2 threads).
#pragma once

#include "cpu/convert.h"

namespace vae_fast::VF_ISA {

// Of a result. With what it is made from, this many are more than a last-level cache has.
constexpr int64_t kStreamElements = int64_t{1} << 21;

constexpr int kLine = 64;

#if defined(__SSE2__)
// A register at a multiple of its size; others see it after end_of_stream.
VF_FN void stream(float* target, FloatRegister a) {
#if defined(__AVX512F__)
  _mm512_stream_ps(target, __m512(a.v));
#elif defined(__AVX2__)
  _mm256_stream_ps(target, __m256(a.v));
#else
  _mm_stream_ps(target, __m128(a.v));
#endif
}
template <class S, class = std::enable_if_t<kIsHalf<S>>>
VF_FN void stream(S* target, FloatRegister a) {
  const HalfWords words = narrow(a, S{});
#if defined(__AVX512F__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(target), __m256i(words));
#elif defined(__AVX2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(target), __m128i(words));
#else
  std::memcpy(target, &words, sizeof words);
#endif
}
VF_FN void end_of_stream() { _mm_sfence(); }
#else
template <class S>
VF_FN void stream(S* target, FloatRegister a) {
  store_register(target, a);
}
VF_FN void end_of_stream() {}
#endif

template <class S, class V>
VF_FN void stream(S* target, Pair<V> a) {
  stream(target, a.low);
  stream(target + kRegister, a.high);
}

// memcpy past the caches, by whole lines of the target.
template <class T>
inline void stream_run(const T* source, T* target, int count) {
  auto* to = reinterpret_cast<char*>(target);
  const auto* from = reinterpret_cast<const char*>(source);
  const int bytes = count * static_cast<int>(sizeof(T));
  const int skip = static_cast<int>(-reinterpret_cast<uintptr_t>(to) % kLine);
  int at = skip < bytes ? skip : bytes;
  std::memcpy(to, from, at);
  for (; at + kLine <= bytes; at += kLine) {
    for (int i = 0; i < kLine; i += static_cast<int>(sizeof(FloatRegister)))
      stream(reinterpret_cast<float*>(to + at + i),
             load_register(reinterpret_cast<const float*>(from + at + i)));
  }
  std::memcpy(to + at, from + at, bytes - at);
}

}  // namespace vae_fast::VF_ISA
