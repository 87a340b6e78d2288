// Sine and cosine of a whole turn, for T a scalar or a vector of float32.
#pragma once

#include "common/config.h"

namespace vae_fast::VF_ISA::math {

// sin and cos of 2 pi w for w in (0, 1]; absolute error below 2e-7. The sine comes without its
// sign, which is that of 1/2 - w. Minimax polynomials on the reduced range.
template <class T>
VF_FN void sincos_two_pi_unsigned(T w, T& sine, T& cosine) {
  // With b the signed distance to the nearest of 1/4 and 3/4: cos 2 pi w = -sin 2 pi b, and
  // sin 2 pi w = cos 2 pi b, negative in the second half.
  const T b = min(w - T(0.25f), T(0.75f) - w);
  const T y = b * b;
  T s = fma(y, T(-39.53670721f), T(76.54978244f));
  s = fma(s, y, T(-81.60100408f));
  s = fma(s, y, T(41.34165503f));
  s = fma(s, y, T(-6.283185160f));
  cosine = b * s;
  T c = fma(y, T(-24.76338313f), T(60.11182014f));
  c = fma(c, y, T(-85.45194685f));
  c = fma(c, y, T(64.93931437f));
  c = fma(c, y, T(-19.73920835f));
  sine = fma(c, y, T(1.0f));
}

}  // namespace vae_fast::VF_ISA::math
