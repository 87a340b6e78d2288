// The little that the C++ tests need of a test framework, so that they build with nothing else.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>

inline int& failures() {
  static int count = 0;
  return count;
}

#define CHECK(condition, ...)                                     \
  do {                                                            \
    if (!(condition)) {                                           \
      ++failures();                                               \
      std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      std::printf(__VA_ARGS__);                                   \
      std::printf("\n");                                          \
    }                                                             \
  } while (false)

inline bool close(double got, double want, double tolerance) {
  if (std::isnan(want)) return std::isnan(got);
  return std::fabs(got - want) <= tolerance * (1.0 + std::fabs(want));
}
