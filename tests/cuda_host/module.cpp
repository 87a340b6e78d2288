// The module VF_MODULE: the bindings of vae_fast._C.cuda over kernels that the CPU runs.

#include <pybind11/pybind11.h>

#include "bindings/cuda.h"
#include "bindings/tensors.h"
#include "executor.h"

PYBIND11_MODULE(VF_MODULE, m) {
  vae_fast::device::bind(m);
  m.def("connect", &vae_fast::connect);
  m.def("set_order", [](uint64_t seed) { cuda_host::options().order = seed; });
  m.def("set_runs", [](bool runs) { cuda_host::options().runs = runs; });
  m.def("set_error", [](double error) { cuda_host::options().error = error; });
}
