// Two random words to two standard normals (Box & Muller 1958).
#pragma once

#include "common/math.h"

namespace vae_fast::VF_ISA {

// T: the type computed in. The uniforms are float32 whatever T is, so that every backend and dtype
// starts from the same bits: word * 2^-32 + 2^-33, in (0, 1].
template <class T, class U>
VF_FN void box_muller(U word, U next_word, T& even, T& odd) {
  const T u = math::unit_uniform<T>(word);
  const T w = math::unit_uniform<T>(next_word);
  const T radius = math::sqrt(math::minus_two_log(u));
  T sine, cosine;
  math::sincos_two_pi(w, sine, cosine);
  even = radius * cosine;
  odd = radius * sine;
}

}  // namespace vae_fast::VF_ISA
