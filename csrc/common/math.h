// The elementary functions that the formulas are written in, for the compiler at hand.
#pragma once

#if defined(__CUDACC__)
#include "cuda/math.cuh"
#else
#include "cpu/math.h"
#endif
