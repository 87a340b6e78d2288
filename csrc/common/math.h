// The elementary functions that the formulas are written in, for the compiler at hand.
#pragma once

#include "common/config.h"

namespace vae_fast::VF_ISA::math {

template <class T>
struct Expm1 {
  T expm1;        // e^v - 1
  T expm1_minus;  // e^v - 1 - v, without cancellation
};

template <class T>
struct ExpHalf {
  T root;         // e^(v/2)
  T expm1;        // e^v - 1
  T expm1_minus;  // e^v - 1 - v, without cancellation
};

}  // namespace vae_fast::VF_ISA::math

#if defined(__CUDACC__)
#include "cuda/math.cuh"
#else
#include "cpu/math.h"
#endif
