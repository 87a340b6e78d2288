// The pages under large outputs.
#pragma once

#include "common/config.h"
#include "cpu/operand.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace vae_fast::VF_ISA {

// Asks for huge pages under memory that is about to be written. A large tensor is fresh memory in
// each call (the C library gives it back at once), whose pages the system makes and clears at the
// first write: by 4 KiB that takes several times as long as the arithmetic. Advice only: where
// there are no huge pages, or the memory has its pages already, nothing changes.
inline void prefer_huge_pages(const Output& output, int64_t elements) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t{1} << 21;
  const auto start = reinterpret_cast<uintptr_t>(output.data);
  const uintptr_t begin = (start + page - 1) & ~(page - 1);
  const uintptr_t end = (start + elements * size_of(output.dtype)) & ~(page - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)output, (void)elements;
#endif
}

}  // namespace vae_fast::VF_ISA
