// What host and device code share in spelling: function qualifiers and the namespace.
//
// The CPU kernels are compiled once per instruction set into one module, so everything they
// instantiate stands in a namespace of that set: the linker must never merge two of them.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define VF_FN __device__ __forceinline__
#else
#define VF_FN inline __attribute__((always_inline))
#endif

// Behind the parameters of a lambda that stands in an inner loop.
#define VF_INLINE __attribute__((always_inline))

#ifndef VF_ISA
#define VF_ISA device
#endif
