// The approximate instructions that the kernels use, by name, each with NVIDIA's bound on its
// error.
//
// Each as asm, for want of a function that becomes it alone. Flushing subnormals (.ftz) is named
// here too, where no argument is one, and nowhere else.
#pragma once

namespace vae_fast::device::intrinsics {

// log2 x for normal x: 2^-22 absolute in (0.5, 2), and 2^-22 relative outside (PTX ISA).
__device__ __forceinline__ float log2_approx(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// sqrt x for normal x, or 0: 2^-23 relative (PTX ISA).
__device__ __forceinline__ float sqrt_approx(float x) {
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// One instruction from compute capability 8.0 on. NaN where b is.
__device__ __forceinline__ float min_nan(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
#else
  return a < b ? a : b;
#endif
}

__device__ __forceinline__ float max_nan(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
#else
  return a > b ? a : b;
#endif
}

}  // namespace vae_fast::device::intrinsics
