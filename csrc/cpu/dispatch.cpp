// The choice of an instruction set, once, when the first kernel is asked for.

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "cpu/kernels.h"

#if defined(VF_HAVE_AVX2)
#include <cpuid.h>
#endif

namespace vae_fast {

namespace baseline {
extern const Kernels table;
}
#if defined(VF_HAVE_AVX2)
namespace avx2 {
extern const Kernels table;
}
#endif
#if defined(VF_HAVE_AVX512)
namespace avx512 {
extern const Kernels table;
}
#endif

#if defined(VF_HAVE_AVX512BF16)
namespace avx512bf16 {
extern const Kernels table;
}
#endif

namespace {

#if defined(VF_HAVE_AVX512)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif
#if defined(VF_HAVE_AVX2)
bool has_f16c() {  // not every compiler's __builtin_cpu_supports knows it
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

const Kernels& choose() {
  const Kernels* runnable[4];  // the best first
  int count = 0;
#if defined(VF_HAVE_AVX512BF16)
  if (has_avx512() && __builtin_cpu_supports("avx512bf16")) runnable[count++] = &avx512bf16::table;
#endif
#if defined(VF_HAVE_AVX512)
  if (has_avx512()) runnable[count++] = &avx512::table;
#endif
#if defined(VF_HAVE_AVX2)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
    runnable[count++] = &avx2::table;
  }
#endif
  runnable[count++] = &baseline::table;

  const char* asked = std::getenv("VAE_FAST_CPU");
  if (asked == nullptr || *asked == '\0') return *runnable[0];
  std::string names;
  for (int i = 0; i < count; ++i) {
    if (std::strcmp(runnable[i]->name, asked) == 0) return *runnable[i];
    names += (i ? ", " : "") + std::string(runnable[i]->name);
  }
  throw std::runtime_error("VAE_FAST_CPU must be one that this build and processor have (" + names +
                           "); got '" + asked + "'");
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace vae_fast
