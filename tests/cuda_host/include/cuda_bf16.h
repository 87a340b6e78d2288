#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct __nv_bfloat16 {
  uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 a) {
  const uint32_t word = static_cast<uint32_t>(a.bits) << 16;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

inline __nv_bfloat16 __float2bfloat16_rn(float a) {
  if (std::isnan(a)) return {0x7FFF};
  uint32_t word;
  std::memcpy(&word, &a, sizeof word);
  return {static_cast<uint16_t>((word + 0x7FFFu + ((word >> 16) & 1u)) >> 16)};
}
