#include "cuda/launch.cuh"

namespace vae_fast::device {

int driver_version() {
  int version = 0;
  check(cudaDriverGetVersion(&version), "the driver's version cannot be read");
  return version;
}

}  // namespace vae_fast::device
